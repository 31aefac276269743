"""One line about a transfer: rewritten in place on a terminal, a new one every ten seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

TERMINAL_SECONDS = 0.2
LINE_SECONDS = 10.0


class TransferLine:
    """A `pipeline.transfer.transfer.Meter` that writes to stderr while it is entered as a context."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._total = self._kept = self._done = 0
        self._started = self._shown = time.monotonic()
        self._lock = threading.Lock()

    def begin(self, *, total_bytes: int, kept_bytes: int) -> None:
        """Say what there is to do."""
        self._total, self._kept = total_bytes, kept_bytes
        self._started = time.monotonic()

    def advance(self, nbytes: int) -> None:
        """Count bytes, and show them when it is time."""
        with self._lock:
            self._done += nbytes
            now = time.monotonic()
            if now - self._shown >= (TERMINAL_SECONDS if self._terminal else LINE_SECONDS):
                self._shown = now
                self._write(now)

    def _write(self, now: float) -> None:
        rate = self._done / max(now - self._started, 1e-9)
        done = self._kept + self._done
        left = f", {(self._total - done) / rate:,.0f} s left" if rate > 0 else ""
        line = f"{self._name} {amount(done)} of {amount(self._total)}, {amount(rate)}/s{left}"
        end = "" if self._terminal else "\n"
        print(f"\r\x1b[K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)

    def __enter__(self) -> TransferLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def amount(nbytes: float) -> str:
    """A number of bytes for people: `3.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:,.1f} {unit}"
