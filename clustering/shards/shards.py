"""Samples to shards of either format, and what the manifest needs to know about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.shards.mds_shards import MdsShards
from clustering.shards.packing import Tokens
from clustering.shards.tar_shards import TarShards
from pipeline.corpus.manifest import BlockEntry, SampleSchema, ShardEntry, file_entry
from pipeline.storage.blocks import BlockGrid, block_checksum, whole_samples

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
        *,
        first_shard: int = 0,
    ) -> None:
        """Write samples, arrays (n, tokens_per_sample), into `folder`, which must not exist.

        Shards are numbered from `first_shard` on, which stands behind that many full ones.
        """
        ...

    def measure(
        self, corpus: Path, schema: SampleSchema, *, first_sample: int = 0
    ) -> tuple[ShardEntry, ...]:
        """Describe the shards in CORPUS/shards, and check that samples lie where arithmetic finds them."""
        ...

    def index(self, folder: Path) -> list[Any]:
        """What the format's own index says of the shards in `folder`, as plain JSON; empty without one."""
        ...

    def write_index(self, folder: Path, entries: Iterable[Any]) -> None:
        """Write the format's own index of all shards of a corpus, if it has one."""
        ...


SHARD_FORMATS: dict[str, ShardFormat] = {"mds": MdsShards(), "webdataset": TarShards()}


def samples_per_shard(schema: SampleSchema, block_bytes: int, shard_bytes: int) -> int:
    """Samples of a shard of about `shard_bytes`: a whole number of full blocks, one at least."""
    block = whole_samples(block_bytes, schema)
    return max(1, shard_bytes // block) * block // schema.stride_bytes


def write_shards(
    samples: Iterable[Tokens],
    folder: Path,
    schema: SampleSchema,
    *,
    shard_format: str,
    block_bytes: int,
    shard_bytes: int | None = None,
    first_shard: int = 0,
) -> None:
    """Write samples, arrays (n, tokens_per_sample), into `folder`, which must not exist.

    Every shard but the last holds a whole number of full blocks, so that only the last block of all is short.
    Shards are of `SHARD_BYTES` where `shard_bytes` does not say otherwise.
    """
    per_shard = samples_per_shard(schema, block_bytes, shard_bytes or SHARD_BYTES)
    SHARD_FORMATS[shard_format].write(samples, folder, schema, per_shard, first_shard=first_shard)


def measure_shards(
    corpus: Path, schema: SampleSchema, shard_format: str = "mds", *, first_sample: int = 0
) -> tuple[ShardEntry, ...]:
    """Describe the shards in CORPUS/shards, and check that samples lie where arithmetic finds them."""
    return SHARD_FORMATS[shard_format].measure(corpus, schema, first_sample=first_sample)


def write_block_checksums(
    corpus: Path, shards: Sequence[ShardEntry], block_bytes: int
) -> BlockEntry:
    """Read the shards once and write CORPUS/shards/blocks.npy, the checksum of every block."""
    return save_block_checksums(corpus, block_checksums(corpus, shards, block_bytes), block_bytes)


def block_checksums(
    corpus: Path, shards: Sequence[ShardEntry], block_bytes: int
) -> NDArray[np.uint64]:
    """Checksum of every block of the shards: uint64 (num_blocks,)."""
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
    return checksums


def save_block_checksums(
    corpus: Path, checksums: NDArray[np.uint64], block_bytes: int
) -> BlockEntry:
    """Write CORPUS/shards/blocks.npy and describe it."""
    np.save(corpus / "shards" / "blocks.npy", checksums)
    entry = file_entry(corpus, "shards/blocks.npy")
    return BlockEntry(**asdict(entry), block_bytes=block_bytes)
