"""Samples by position: one gather over all memory-mapped MDS shards.

An MDS shard of fixed-length samples is a header followed by the samples back to back, so a position
becomes a memory address by arithmetic and nothing is parsed. To numpy, the stretch of memory that holds
the maps is one array of samples that begin at every byte, overlapping; indexing it with addresses copies
a batch from any number of shards in one call, as fast as from a single flat array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorpusError
from pipeline.manifest import SampleSchema, ShardEntry
from pipeline.storage import Storage

_UNMAPPED = -1


class ShardReader:
    """Random access to the samples of a corpus; a shard is mapped when it is first touched."""

    def __init__(
        self, storage: Storage, shards: Sequence[ShardEntry], schema: SampleSchema
    ) -> None:
        self._storage = storage
        self._shards = shards
        self._starts = np.cumsum([0, *(shard.samples for shard in shards)])
        self._tokens = schema.tokens_per_sample
        self._dtype = np.dtype(schema.dtype).newbyteorder("<")
        self._sample_bytes = self._tokens * self._dtype.itemsize
        self._memory = np.empty(0, dtype=f"V{self._sample_bytes}")
        self._base = 0
        self._maps: list[NDArray[np.uint8]] = []
        self._first_address = np.full(len(shards), _UNMAPPED, dtype=np.int64)
        for shard in shards:
            if shard.data_offset + shard.samples * self._sample_bytes > shard.bytes:
                raise CorpusError(
                    f"the manifest says that {shard.file} holds {shard.samples:,} samples of "
                    f"{self._sample_bytes:,} bytes from byte {shard.data_offset:,} on, but only "
                    f"{shard.bytes:,} bytes in all: it is damaged. Fetch or build the corpus again."
                )

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return int(self._starts[-1])

    def addresses(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the samples at `positions`, all in 0..num_samples-1, lie in memory: same shape.

        Maps the shards that hold them; `CorpusError` when one is missing or has the wrong length.
        """
        shard = self._starts.searchsorted(positions, side="right") - 1
        first = self._first_address[shard]
        if (first == _UNMAPPED).any():
            self._map(np.unique(shard[first == _UNMAPPED]))
            first = self._first_address[shard]
        found: NDArray[np.int64] = first + (positions - self._starts[shard]) * self._sample_bytes
        return found

    def copy(self, addresses: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the samples that begin at `addresses` (n,), as `addresses()` returned them: (n, tokens)."""
        samples: NDArray[Any] = self._memory[addresses - self._base]
        return samples.view(self._dtype).reshape(len(addresses), self._tokens)

    def _map(self, numbers: NDArray[np.int64]) -> None:
        for number in numbers:
            shard = self._shards[number]
            content = self._storage.map(shard)
            self._maps.append(content)
            self._first_address[number] = content.ctypes.data + shard.data_offset
        self._base = min(content.ctypes.data for content in self._maps)
        end = max(content.ctypes.data + len(content) for content in self._maps)
        self._memory = np.asarray(
            _Memory(self._base, end - self._base - self._sample_bytes + 1, self._sample_bytes)
        )


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
