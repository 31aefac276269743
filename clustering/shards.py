"""Blocks to MDS shards, and what the manifest needs to know about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from clustering.packing import Tokens
from pipeline.blocks import BlockGrid, block_checksum
from pipeline.manifest import BlockEntry, SampleSchema, ShardEntry, file_entry

SHARD_BYTES = 64 * 2**20


def write_shards(
    blocks: Iterable[Tokens],
    folder: Path,
    schema: SampleSchema,
    advance: Callable[[int], None] = lambda samples: None,
) -> None:
    """Write blocks (n, tokens_per_sample) into `folder`, which must not exist, with MDSWriter."""
    from streaming import MDSWriter

    encoding = f"ndarray:{schema.dtype}:{schema.tokens_per_sample}"
    with MDSWriter(
        out=str(folder),
        columns={schema.column: encoding},
        hashes=["sha256"],
        size_limit=SHARD_BYTES,
    ) as writer:
        for rows in blocks:
            for row in np.ascontiguousarray(rows, dtype=schema.dtype):
                writer.write({schema.column: row})
            advance(len(rows))


def measure_shards(corpus: Path, schema: SampleSchema) -> tuple[ShardEntry, ...]:
    """Describe the shards in CORPUS/shards, and check that samples lie where arithmetic finds them."""
    index = json.loads((corpus / "shards" / "index.json").read_text("utf-8"))
    entries = []
    for shard in index["shards"]:
        raw = shard["raw_data"]
        name = f"shards/{raw['basename']}"
        samples = int(shard["samples"])
        with (corpus / name).open("rb") as file:
            head = np.fromfile(file, dtype="<u4", count=samples + 2)
        offsets = head[1:].astype(np.int64)
        assert head[0] == samples, f"{name}: header and index disagree on the number of samples"
        assert (np.diff(offsets) == schema.stride_bytes).all(), f"{name}: samples differ in length"
        assert offsets[-1] == raw["bytes"], f"{name}: the last sample does not end the file"
        entries.append(
            ShardEntry(
                file=name,
                bytes=raw["bytes"],
                sha256=raw["hashes"]["sha256"],
                samples=samples,
                data_offset=int(offsets[0]),
                data_bytes=int(offsets[-1] - offsets[0]),
            )
        )
    return tuple(entries)


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
