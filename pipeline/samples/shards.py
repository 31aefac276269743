"""Samples by position, for token corpora: one gather, from memory maps or from the block cache.

Samples of one length lie in a shard at equal distances, so a position becomes a place by arithmetic and
nothing is parsed. Reading has two steps, because the stream plans many batches at once and copies one at
a time: positions become handles, and handles become samples.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import SampleSchema, ShardEntry
from pipeline.storage.blocks import BlockGrid, Ints
from pipeline.storage.storage import Blocks, Storage

_UNMAPPED = -1


class SampleReader(Protocol):
    """Random access to samples."""

    def handles(self, positions: Ints) -> Ints:
        """A number for the place of each sample at `positions`: same shape."""
        ...

    def copy(self, handles: Ints) -> Any:
        """The samples at `handles` (n,): an array (n, tokens) uint16 or uint32, or a list of n records."""
        ...

    def read_ahead(self, handles: Ints) -> None:
        """These samples (m,) come next, in this order; takes the place of an earlier list."""
        ...


class _Geometry:
    """Which shard, and which byte of its data, a position is."""

    def __init__(self, shards: Sequence[ShardEntry], schema: SampleSchema) -> None:
        self.starts = np.cumsum([0, *(shard.samples for shard in shards)])
        self.stride = schema.stride_bytes
        self.sample_bytes = schema.sample_bytes
        self.tokens = schema.tokens_per_sample
        self.dtype = np.dtype(schema.dtype).newbyteorder("<")

    def locate(self, positions: Ints) -> tuple[Ints, Ints]:
        """Shard and first byte, counted from the shard's data_offset; both of positions' shape."""
        shard = self.starts.searchsorted(positions, side="right") - 1
        return shard, (positions - self.starts[shard]) * self.stride

    def as_tokens(self, samples: NDArray[np.void]) -> NDArray[Any]:
        """Reinterpret copied bytes (n,) as tokens (n, tokens)."""
        return samples.view(self.dtype).reshape(len(samples), self.tokens)


class MappedReader:
    """Reads local shards through memory maps; a shard is mapped when it is first touched.

    A handle is a memory address. To numpy, the stretch of memory that holds the maps is one array of
    samples that begin at every byte, overlapping; indexing it with addresses copies a batch from any
    number of shards in one call, as fast as from a single flat array. Safe to use from several threads.
    """

    def __init__(
        self, storage: Storage, shards: Sequence[ShardEntry], schema: SampleSchema
    ) -> None:
        self._storage = storage
        self._shards = shards
        self._geometry = _Geometry(shards, schema)
        # The address where the maps begin, and that array: one value, so that a copy uses two that belong
        # together, whatever another thread maps.
        self._memory = 0, np.empty(0, dtype=f"V{schema.sample_bytes}")
        self._mapping = threading.Lock()
        self._begin, self._end = sys.maxsize, 0
        self._maps: list[NDArray[np.uint8]] = []
        self._first_address = np.full(len(shards), _UNMAPPED, dtype=np.int64)

    def handles(self, positions: Ints) -> Ints:
        """See `SampleReader`; `CorpusError` when a shard is missing or has the wrong length."""
        shard, data_byte = self._geometry.locate(positions)
        first = self._first_address[shard]
        if (first == _UNMAPPED).any():
            self._map(np.unique(shard[first == _UNMAPPED]))
            first = self._first_address[shard]
        found: Ints = first + data_byte
        return found

    def copy(self, handles: Ints) -> NDArray[Any]:
        """See `SampleReader`."""
        base, memory = self._memory
        return self._geometry.as_tokens(memory[handles - base])

    def read_ahead(self, handles: Ints) -> None:
        """Nothing: the kernel reads mapped files as it sees fit."""

    def _map(self, numbers: Ints) -> None:
        contents = [self._storage.map(self._shards[number]) for number in numbers]  # all or none
        sample_bytes = self._geometry.sample_bytes
        with self._mapping:
            self._maps += contents
            begins = [content.ctypes.data for content in contents]
            ends = [begin + len(content) for begin, content in zip(begins, contents, strict=True)]
            self._begin, self._end = min(self._begin, *begins), max(self._end, *ends)
            count = self._end - self._begin - sample_bytes + 1
            self._memory = self._begin, np.asarray(_Memory(self._begin, count, sample_bytes))
            # Last: from now on other threads read there, too.
            for number, begin in zip(numbers, begins, strict=True):
                self._first_address[number] = begin + self._shards[number].data_offset


class BlockReader:
    """Reads shards that are elsewhere through their blocks, which hold whole samples.

    A handle is block * block_bytes + offset.
    """

    def __init__(self, blocks: Blocks, grid: BlockGrid, schema: SampleSchema) -> None:
        self._blocks = blocks
        self._grid = grid
        self._geometry = _Geometry(grid.shards, schema)

    def handles(self, positions: Ints) -> Ints:
        """See `SampleReader`."""
        block, offset = self._grid.locate(*self._geometry.locate(positions))
        found: Ints = block * self._grid.block_bytes + offset
        return found

    def copy(self, handles: Ints) -> NDArray[Any]:
        """See `SampleReader`; waits for blocks, `StorageError` when one cannot be had."""
        block, offset = np.divmod(handles, self._grid.block_bytes)
        return self._geometry.as_tokens(
            self._blocks.copy(block, offset, self._geometry.sample_bytes)
        )

    def read_ahead(self, handles: Ints) -> None:
        """See `SampleReader`."""
        blocks = handles // self._grid.block_bytes
        self._blocks.read_ahead(self._grid.as_first_needed(blocks))


class _Memory:
    """A stretch of this process's memory, described to numpy as overlapping read-only samples."""

    def __init__(self, base: int, count: int, sample_bytes: int) -> None:
        self.__array_interface__ = {
            "version": 3,
            "data": (base, True),
            "shape": (count,),
            "strides": (1,),
            "typestr": f"|V{sample_bytes}",
        }
