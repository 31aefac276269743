"""Ctrl-C as a request: the step in progress is finished and saved before the run stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from pipeline import BraidstreamError


class TrainingInterrupted(BraidstreamError):  # noqa: N818 - a request that was met, not an error
    """The run stopped on request after a checkpoint; the same call continues it."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped and saved after step {step}.")
        self.step = step
        self.signal_number = signal_number


class Interrupt:
    """Notes SIGINT and SIGTERM (which schedulers and torchrun send) instead of dying of them.

    A second Ctrl-C stops at once, as usual. Outside the main thread, where Python delivers no signals,
    nothing is changed.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal_number is not None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
