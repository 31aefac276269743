"""The most memory that this process and its workers held at once."""

from __future__ import annotations

import resource
import sys
import threading
from pathlib import Path
from types import TracebackType

_PROCESSES = Path("/proc")
_SECONDS = 0.05


class PeakMemory:
    """Looks twenty times a second while its block runs.

    Where the system tells them apart (Linux), pages of mapped files do not count: it drops them when memory
    is wanted. Elsewhere it is the largest resident set so far of this process and of one worker.
    """

    def __init__(self) -> None:
        self.bytes = 0
        """What was seen so far."""
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._look()
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, _held("self") if _PROCESSES.is_dir() else _largest())


def _held(process: str, parent: bytes | None = None) -> int:
    """Anonymous pages of a process and of all that descend from it; 0 of one that has just ended.

    One with its parent's command line, `parent`, was forked and has yet to become another program: what it
    holds are its parent's pages.
    """
    try:
        command = (_PROCESSES / process / "cmdline").read_bytes()
        if command == parent:
            return 0
        status = (_PROCESSES / process / "status").read_text("ascii", "replace")
        tasks = [*(_PROCESSES / process / "task").iterdir()]
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    own = next((line for line in status.splitlines() if line.startswith("RssAnon:")), None)
    kilobytes = int(own.split()[1]) if own is not None else 0
    return kilobytes * 1024 + sum(_held(child, command) for child in children)


def _largest() -> int:
    users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    largest = sum(resource.getrusage(who).ru_maxrss for who in users)
    return largest if sys.platform == "darwin" else largest * 1024
