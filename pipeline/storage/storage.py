"""Where the bytes of a corpus come from, on this machine or far away.

`Storage` reads the files that a manifest names, whole. `Blocks` reads the shards, a block at a time, where
they are not on this machine. Both are implemented for object stores in `remote.py`; local shards need no
blocks, they are mapped.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import FileEntry
from pipeline.errors import CorpusError
from pipeline.storage.mapped_file import mapped


class Storage(Protocol):
    """Read access to the files that a manifest names."""

    def read(self, entry: FileEntry) -> bytes:
        """The whole content of a small file, checked against its checksum."""
        ...

    def map(self, entry: FileEntry) -> NDArray[np.uint8]:
        """The content of a large file as a read-only byte array of shape (entry.bytes,)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchStatistics:
    """What reading from an object store has cost this process so far."""

    blocks_needed: int = 0
    """Blocks that batches touched, counted once per batch."""
    blocks_hit: int = 0
    """Those of them that were in the cache when the batch asked."""
    bytes_fetched: int = 0
    """Bytes that came over the network, those of failed checks included."""
    bytes_used: int = 0
    """Bytes of samples that were handed out."""
    wait_seconds: float = 0.0
    """Time that batches waited for blocks."""
    retries: int = 0
    """Requests that were made again."""

    @property
    def hit_rate(self) -> float:
        """Share of needed blocks that were there; 1 before the first."""
        return self.blocks_hit / self.blocks_needed if self.blocks_needed else 1.0

    def __add__(self, other: FetchStatistics) -> FetchStatistics:
        """The two together, as of several processes."""
        return FetchStatistics(
            **{name: getattr(self, name) + getattr(other, name) for name in self.__slots__}
        )


class Blocks(Protocol):
    """Read access to the blocks of all shards (`pipeline.storage.blocks.BlockGrid` numbers them)."""

    def copy(
        self, blocks: NDArray[np.int64], offsets: NDArray[np.int64], nbytes: int
    ) -> NDArray[np.void]:
        """The `nbytes` bytes at `offsets` (n,) inside `blocks` (n,): dtype V{nbytes}, shape (n,).

        Waits until they are there. Raises `StorageError` when a block cannot be had.
        """
        ...

    def read(
        self, blocks: NDArray[np.int64], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[bytes]:
        """Pieces of different lengths (n,), each inside one block."""
        ...

    def read_ahead(self, blocks: NDArray[np.int64]) -> None:
        """Fetch these soon, in this order; takes the place of an earlier list."""
        ...

    @property
    def statistics(self) -> FetchStatistics:
        """Counted since the process opened the corpus."""
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
        return mapped(self._existing(entry))

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
