"""Peak memory of a process and its children, above what importing torch costs each of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 0.05


class PeakMemory:
    """Watches from its making (when torch is imported, and little else) until `stop`.

    Counts anonymous and shared memory; pages of mapped files are left out, since the kernel may drop them.
    """

    def __init__(self) -> None:
        self._baseline, _ = usage(os.getpid())
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Peak in bytes."""
        self._stopped.set()
        self._thread.join()
        self._look()
        return self._peak

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        used = [usage(process) for process in family(os.getpid())]
        anonymous = sum(max(0, bytes_ - self._baseline) for bytes_, _ in used)
        shared = max((bytes_ for _, bytes_ in used), default=0)
        self._peak = max(self._peak, anonymous + shared)


def usage(process: int) -> tuple[int, int]:
    """Anonymous and shared bytes that are resident; none once the process is gone."""
    fields = {"RssAnon": 0, "RssShmem": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in fields:
                fields[name] = int(value.split()[0]) * 1024
    return fields["RssAnon"], fields["RssShmem"]


def family(process: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield process
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
