"""Samples by position: one gather over memory-mapped MDS shards.

An MDS shard of fixed-length samples is a header followed by the samples back to back, so a position
becomes an address by arithmetic and nothing is parsed. Each shard is seen as an array of rows, and a
batch is copied row by row by numpy, once, into memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.manifest import SampleSchema, ShardEntry
from pipeline.storage import Storage


class ShardReader:
    """Random access to the samples of a corpus; shards are mapped when first touched."""

    def __init__(
        self, storage: Storage, shards: Sequence[ShardEntry], schema: SampleSchema
    ) -> None:
        self._storage = storage
        self._shards = shards
        self._starts = np.cumsum([0, *(shard.samples for shard in shards)])
        self._rows: list[NDArray[Any] | None] = [None] * len(shards)
        self._tokens = schema.tokens_per_sample
        self._dtype = np.dtype(schema.dtype).newbyteorder("<")
        # One opaque item per sample: a gather then copies whole samples, whatever their alignment.
        self._row_dtype = np.dtype((np.void, self._tokens * self._dtype.itemsize))

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return int(self._starts[-1])

    def gather(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the samples at `positions` (n,), all in 0..num_samples-1: (n, tokens) uint16|uint32."""
        if len(self._shards) == 1:
            rows = self._shard_rows(0).take(positions)
        else:
            rows = np.empty(len(positions), dtype=self._row_dtype)
            shard_of = self._starts.searchsorted(positions, side="right") - 1
            in_shard = positions - self._starts[shard_of]
            first = int(shard_of[0]) if len(shard_of) else 0
            if (shard_of == first).all():
                self._shard_rows(first).take(in_shard, out=rows, mode="clip")
            else:
                for shard in np.unique(shard_of):
                    here = np.flatnonzero(shard_of == shard)
                    rows[here] = self._shard_rows(int(shard)).take(in_shard[here])
        return rows.view(self._dtype).reshape(len(positions), self._tokens)

    def _shard_rows(self, number: int) -> NDArray[Any]:
        rows = self._rows[number]
        if rows is None:
            shard = self._shards[number]
            content = self._storage.map(shard)
            rows = np.ndarray(
                (shard.samples,), dtype=self._row_dtype, buffer=content, offset=shard.data_offset
            )
            self._rows[number] = rows
        return rows
