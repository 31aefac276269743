"""Samples to shards of either format, and what the manifest needs to know about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from clustering.mds_shards import MdsShards
from clustering.packing import Tokens
from clustering.tar_shards import TarShards
from pipeline.blocks import BlockGrid, block_checksum, whole_samples
from pipeline.manifest import BlockEntry, SampleSchema, ShardEntry, file_entry

SHARD_BYTES = 64 * 2**20
"""Size that shards aim at."""


class ShardFormat(Protocol):
    """A container of samples of one length, in which they lie at equal distances."""

    marker: str
    """A file in the folder of shards whose presence tells this format."""

    def schema(self, tokens_per_sample: int, dtype: str) -> SampleSchema:
        """What a sample is, and how far apart samples lie."""
        ...

    def write(
        self,
        samples: Iterable[Tokens],
        folder: Path,
        schema: SampleSchema,
        samples_per_shard: int,
        advance: Callable[[int], None],
    ) -> None:
        """Write samples, arrays (n, tokens_per_sample), into `folder`, which must not exist."""
        ...

    def measure(self, corpus: Path, schema: SampleSchema) -> tuple[ShardEntry, ...]:
        """Describe the shards in CORPUS/shards, and check that samples lie where arithmetic finds them."""
        ...


SHARD_FORMATS: dict[str, ShardFormat] = {"mds": MdsShards(), "webdataset": TarShards()}


def write_shards(
    samples: Iterable[Tokens],
    folder: Path,
    schema: SampleSchema,
    *,
    shard_format: str,
    block_bytes: int,
    advance: Callable[[int], None] = lambda samples: None,
) -> None:
    """Write samples, arrays (n, tokens_per_sample), into `folder`, which must not exist.

    Every shard but the last holds a whole number of full blocks, so that only the last block of all is short.
    """
    block = whole_samples(block_bytes, schema)
    blocks_per_shard = max(1, SHARD_BYTES // block)
    samples_per_shard = blocks_per_shard * block // schema.stride_bytes
    SHARD_FORMATS[shard_format].write(samples, folder, schema, samples_per_shard, advance)


def measure_shards(
    corpus: Path, schema: SampleSchema, shard_format: str = "mds"
) -> tuple[ShardEntry, ...]:
    """Describe the shards in CORPUS/shards, and check that samples lie where arithmetic finds them."""
    return SHARD_FORMATS[shard_format].measure(corpus, schema)


def write_block_checksums(
    corpus: Path, shards: Sequence[ShardEntry], block_bytes: int
) -> BlockEntry:
    """Read the shards once and write CORPUS/shards/blocks.npy, the checksum of every block."""
    grid = BlockGrid(shards, block_bytes)
    checksums = np.empty(grid.num_blocks, dtype=np.uint64)
    mapped, number = None, -1
    for block in range(grid.num_blocks):
        extent = grid.extent(block)
        if extent.shard != number:
            number = extent.shard
            mapped = np.memmap(corpus / shards[number].file, dtype=np.uint8, mode="r")
        assert mapped is not None
        checksums[block] = block_checksum(mapped[extent.begin : extent.end])
    np.save(corpus / "shards" / "blocks.npy", checksums)
    entry = file_entry(corpus, "shards/blocks.npy")
    return BlockEntry(
        file=entry.file, bytes=entry.bytes, sha256=entry.sha256, block_bytes=block_bytes
    )
