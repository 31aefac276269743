"""Blocks: the unit of transfer, as arithmetic over the shards.

A block is a stretch of about 1 MiB of one shard with a checksum of its own in the corpus. Blocks begin where
a shard's samples begin and are numbered through the shards in their order; in token corpora a block holds
whole samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import SampleSchema, ShardEntry

Ints = NDArray[np.int64]

BLOCK_BYTES = 2**20
"""Size that blocks aim at."""


def whole_samples(block_bytes: int, schema: SampleSchema) -> int:
    """The size of a block of whole samples that comes closest to `block_bytes` from below; one at least."""
    return max(1, block_bytes // schema.stride_bytes) * schema.stride_bytes


def block_checksum(content: bytes | NDArray[np.uint8]) -> int:
    """XXH3-64 of a block's bytes: guards against damage, not against forgery."""
    from xxhash import xxh3_64_intdigest

    return xxh3_64_intdigest(content if isinstance(content, bytes) else content.data)


class BlockExtent(NamedTuple):
    """Where one block lies."""

    shard: int
    """Number of the shard."""
    begin: int
    """First byte in the shard's file."""
    end: int
    """One past the last byte."""


class BlockGrid:
    """Which block holds which byte of which shard."""

    def __init__(self, shards: Sequence[ShardEntry], block_bytes: int) -> None:
        self.block_bytes = block_bytes
        """Size of every block but the last of a shard."""
        self.shards = shards
        self._data_offset = np.array([shard.data_offset for shard in shards], dtype=np.int64)
        self._data_bytes = np.array([shard.data_bytes for shard in shards], dtype=np.int64)
        per_shard = -(-self._data_bytes // block_bytes)
        self._first_block = np.concatenate([[0], np.cumsum(per_shard)]).astype(np.int64)

    @property
    def num_blocks(self) -> int:
        """Blocks in all shards."""
        return int(self._first_block[-1])

    def locate(self, shard: Ints, data_byte: Ints) -> tuple[Ints, Ints]:
        """Block and offset in it of bytes counted from their shards' data_offset; all of shape (n,)."""
        number, offset = np.divmod(data_byte, self.block_bytes)
        return self._first_block[shard] + number, offset

    def as_first_needed(self, blocks: Ints) -> Ints:
        """Each of `blocks` (n,) once, in the order in which they come first."""
        # Short numbers are sorted several times faster.
        kind = np.uint16 if self.num_blocks <= 2**16 else np.int64
        _, first = np.unique(blocks.astype(kind), return_index=True)
        found: Ints = blocks[np.sort(first)]
        return found

    def extent(self, block: int) -> BlockExtent:
        """Where `block`, one of 0..num_blocks-1, lies."""
        shard = int(self._first_block.searchsorted(block, side="right")) - 1
        start = (block - int(self._first_block[shard])) * self.block_bytes
        stop = min(start + self.block_bytes, int(self._data_bytes[shard]))
        offset = int(self._data_offset[shard])
        return BlockExtent(shard, offset + start, offset + stop)
