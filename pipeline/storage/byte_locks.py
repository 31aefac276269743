"""Locks with numbers, shared by all processes that name the same file.

They are byte-range locks of an *open file description* (Linux): the kernel drops them when the last process
that holds the description ends, however it ends, so a killed process never leaves one behind. Unlike the
classic POSIX locks they belong to the object that took them and not to the whole process: two objects in one
process exclude each other. Threads that share one object do not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StorageError

_FLOCK = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid
_open_locks: weakref.WeakSet[ByteLocks] = weakref.WeakSet()


class ByteLocks:
    """The locks of one lock file, which is made if need be. `StorageError` where there are no such locks."""

    def __init__(self, path: Path) -> None:
        if not hasattr(fcntl, "F_OFD_SETLK"):
            raise StorageError(
                "the block cache needs locks that only Linux has (F_OFD_SETLK). On other systems copy the "
                "corpus first (`braidstream pull URL FOLDER`) and open the folder."
            )
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._release = weakref.finalize(self, os.close, self._file)
        _open_locks.add(self)

    @contextmanager
    def exclusive(self, number: int) -> Iterator[None]:
        """Hold a lock for the length of a `with` block; waits for it."""
        self._set(fcntl.F_WRLCK, number, wait=True)
        try:
            yield
        finally:
            self.release(number)

    def try_exclusive(self, number: int) -> bool:
        """Take a lock, or turn a shared one into an exclusive one, if nobody else holds it."""
        return self._set(fcntl.F_WRLCK, number)

    def share(self, number: int) -> None:
        """Hold a lock together with others, or turn an exclusive one into a shared one; waits for it."""
        self._set(fcntl.F_RDLCK, number, wait=True)

    def release(self, number: int) -> None:
        """Give a lock back; nothing happens when it is not held."""
        self._set(fcntl.F_UNLCK, number)

    def close(self) -> None:
        """Give all locks back."""
        self._release()

    def _set(self, kind: int, number: int, *, wait: bool = False) -> bool:
        request = _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) and not wait:
                return False
            raise StorageError(
                f"{self._path} cannot be locked ({error.strerror}): the file system of the cache folder has "
                "no byte-range locks. Choose a cache folder on a local disk."
            ) from error
        return True


def _leave_to_the_parent() -> None:
    """In a forked child: an inherited description would keep the parent's locks when the parent dies."""
    for locks in list(_open_locks):
        locks.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
