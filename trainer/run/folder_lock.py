"""One process at a time trains in a folder; the system forgets one that ended, however it ended."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.1


class FolderLock:
    """The lock of one folder, a file in it. Where a file system has no locks nobody is kept out."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Keep others out until `release`; False where another keeps this one out."""
        for _ in range(_ATTEMPTS):  # whoever only looks has it for a moment
            if self._try():
                return True
            time.sleep(_PAUSE_SECONDS)
        return False

    def is_taken(self) -> bool:
        """Whether another keeps this one out at this moment."""
        if not self._path.exists():
            return False
        taken = not self._try()
        self.release()
        return taken

    def release(self) -> None:
        """Let others in; nothing happens where it was not taken."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _try(self) -> bool:
        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError:
            pass
        self._file = file
        return True
