"""Trying again: how often and how long, and what is given up on at once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import StorageError

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
SILENT_SECONDS = 5.0
"""Whoever waits for longer is told what for."""

_log = logging.getLogger(__name__)

# A generator of our own: drawing from the global one would change the user's random numbers.
_jitter = random.Random()


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How patient a store is: by default a fault in 10% of the requests fails 1 read in 100 million."""

    attempts: int = 8
    """Requests per read, the first one included."""
    deadline_seconds: float = 120.0
    """No further attempt begins when a read is older than this."""
    request_seconds: float = 10.0
    """A request to which nothing comes for this long is cut off and counts as failed."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.deadline_seconds < 0 or self.request_seconds <= 0:
            raise StorageError(
                f"{self} allows no request: it takes at least 1 attempt, a deadline of at least 0 "
                "seconds, and more than 0 seconds per request."
            )

    def pause_seconds(self, failures: int) -> float:
        """Exponential backoff with full jitter, so that many readers do not come back together."""
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
        return _jitter.uniform(0, longest)


class RequestError(Exception):
    """One request failed.

    `transient`: another attempt may succeed. `kind`: what the failure becomes when none is made.
    """

    def __init__(
        self, reason: str, *, transient: bool, kind: type[StorageError] = StorageError
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.transient = transient
        self.kind = kind


def keep_trying(
    action: Callable[[], T], *, what: str, policy: Retries, on_retry: Callable[[], None]
) -> T:
    """What `action` returns, tried again while it raises a transient `RequestError`.

    Logs a warning, once, when it takes long. Raises `StorageError`, which begins with `what` and says how it
    ended. The error carries no cause: the text of a client's own exception may quote what the server sent,
    credentials included.
    """
    started = time.monotonic()
    failures = 0
    said = False
    while True:
        try:
            return action()
        except RequestError as failed:
            failure = failed
        failures += 1
        if not failure.transient:
            raise failure.kind(f"{what}: {failure.reason}.")
        pause = policy.pause_seconds(failures)
        elapsed = time.monotonic() - started
        if failures >= policy.attempts or elapsed + pause > policy.deadline_seconds:
            times = "1 attempt" if failures == 1 else f"{failures} attempts"
            raise StorageError(
                f"{what}: {failure.reason}. Given up after {times} in {elapsed:.1f} seconds; when the "
                "store and the way to it are well again, the same call continues."
            )
        if elapsed >= SILENT_SECONDS and not said:
            said = True
            _log.warning(
                "%s: %s. Trying again, for %.0f seconds in all.",
                what,
                failure.reason,
                policy.deadline_seconds,
            )
        on_retry()
        time.sleep(pause)
