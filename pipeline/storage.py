"""Where the bytes of a corpus come from: small files whole, shards as maps.

`Storage` is the seam for object stores: a store with ranged reads implements the same two verbs over a
local block cache, and everything above gathers from memory maps either way.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorpusError
from pipeline.manifest import FileEntry


class Storage(Protocol):
    """Read access to the files that a manifest names."""

    def read(self, entry: FileEntry) -> bytes:
        """The whole content of a small file, checked against its checksum."""
        ...

    def map(self, entry: FileEntry) -> NDArray[np.uint8]:
        """The content of a large file as a read-only byte array of shape (entry.bytes,)."""
        ...


class LocalStorage:
    """A folder on a local or mounted disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, entry: FileEntry) -> bytes:
        """Read a file; `CorpusError` when it is missing or does not match its checksum."""
        content = self._existing(entry).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256:
            raise CorpusError(
                f"{entry.file} is damaged: its sha256 is {found[:16]}…, the manifest says "
                f"{entry.sha256[:16]}…. Fetch or build the corpus again."
            )
        return content

    def map(self, entry: FileEntry) -> NDArray[np.uint8]:
        """Map a file; `CorpusError` when it is missing or its length is not the manifest's."""
        mapped = np.memmap(self._existing(entry), dtype=np.uint8, mode="r")
        return np.asarray(mapped)

    def _existing(self, entry: FileEntry) -> Path:
        path = self.folder / entry.file
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise CorpusError(
                f"{path} is missing, though the manifest names it. Fetch or build the corpus again."
            ) from None
        if found != entry.bytes:
            raise CorpusError(
                f"{path} has {found:,} bytes; the manifest says {entry.bytes:,}. It was cut off or "
                "replaced: fetch or build the corpus again."
            )
        return path


def read_array(storage: Storage, entry: FileEntry) -> NDArray[Any]:
    """Read an `.npy` file; pickled objects are refused."""
    try:
        return np.load(io.BytesIO(storage.read(entry)), allow_pickle=False)  # type: ignore[no-any-return]
    except ValueError as error:
        raise CorpusError(f"{entry.file} is no array file ({error}).") from error
