"""A file mapped into memory, without a file that stays open.

Python's own maps keep a descriptor each, and a process may have 1,024 of these by default: too few for a
corpus of 64 GiB in shards of 64 MiB. A map needs none, so the system is asked for one directly, until the
oldest Python supported is 3.13, whose `mmap` takes `trackfd=False`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def mapped(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, read-only; the map is gone when the last array over it is.

    Raises `OSError` when there is no such file, or the system grants no map.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return np.empty(0, dtype=np.uint8)
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(path))
    memory = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False  # threads may still read
    return np.frombuffer(memoryview(memory).toreadonly(), dtype=np.uint8)
