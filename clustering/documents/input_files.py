"""One file of the input, in a folder or in an object store: what it is called, how long it is, its bytes."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from clustering.work.object_file import ObjectFile
from pipeline.stores.address import is_address
from pipeline.stores.object_store import ObjectStore

COMPRESSIONS = (".gz", ".zst")
READ_BYTES = 2**23
"""Of an object, fetched at a time: one request."""


class InputFile(Protocol):
    """What reading needs to know of a file."""

    @property
    def name(self) -> str:
        """Name relative to what was asked for: what provenance records, free of machine paths."""

    @property
    def place(self) -> str:
        """Absolute path, links followed, or address: the same for a file however it was named."""

    @property
    def size(self) -> int:
        """Bytes; 0 of a file that cannot even be looked at, which reading it will report."""

    @property
    def identity(self) -> Sequence[Any]:
        """What changes when the file does."""

    def is_regular(self) -> bool:
        """Whether it is no pipe or device. Raises `OSError` when it cannot be looked at."""

    def open(self) -> IO[bytes]:
        """Its bytes, seekable, a buffer at a time. Raises `OSError` or `StorageError`, reading it, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """A file in a folder."""

    path: Path
    name: str
    """See `InputFile`."""

    @property
    def place(self) -> str:
        """See `InputFile`."""
        return os.path.realpath(self.path)

    @property
    def size(self) -> int:
        """See `InputFile`."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def identity(self) -> Sequence[Any]:
        """Name, bytes, time of change in nanoseconds."""
        try:
            found = self.path.stat()
        except OSError:
            return [self.name]
        return [self.name, found.st_size, found.st_mtime_ns]

    def is_regular(self) -> bool:
        """See `InputFile`."""
        return stat.S_ISREG(self.path.stat().st_mode)

    def open(self) -> IO[bytes]:
        """See `InputFile`."""
        return self.path.open("rb")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """An object below an address."""

    store: ObjectStore
    name: str
    """See `InputFile`."""
    size: int
    """See `InputFile`."""
    mark: str = ""
    """What changes when the object does; nobody asks where another process found it."""

    @property
    def place(self) -> str:
        """See `InputFile`."""
        return self.store.address(self.name)

    @property
    def identity(self) -> Sequence[Any]:
        """Name, bytes, etag or time of change."""
        return [self.name, self.size, self.mark]

    def is_regular(self) -> bool:
        """See `InputFile`."""
        return True

    def open(self) -> IO[bytes]:
        """See `InputFile`."""
        return io.BufferedReader(ObjectFile(self.store, self.name, self.size), READ_BYTES)


def input_file(place: str, name: str, size: int) -> InputFile:
    """The file at a place, as another process found it."""
    if is_address(place):
        return RemoteFile(store=_store(place.removesuffix(f"/{name}")), name=name, size=size)
    return LocalFile(path=Path(place), name=name)


@lru_cache(maxsize=16)
def _store(address: str) -> ObjectStore:
    """One client for all files of a folder, which keeps its connections."""
    return ObjectStore(address)


def kind_of(name: str) -> str:
    """What a file of this name holds: the last suffix that is no compression, lower case."""
    suffixes = [s.lower() for s in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
