"""Tokens in leaf order to shards, a few shards at a time.

write/shards/…               the shards of all units, as they go into the corpus
write/blocks-00000.npy       uint64: checksums of the blocks of unit 0's shards
write/documents-00000.arrow  the documents that begin in unit 0, in order, with the number of their tokens
write/unit-00000.json        entries of its shards for the manifest; published last
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.engines.engine import Device
from clustering.shards.leaf_order import keys_name, run_name
from clustering.shards.packing import Tokens, cut_blocks, join_documents
from clustering.shards.shard_plan import UNITS, slice_of_run
from clustering.shards.shards import (
    SHARD_FORMATS,
    block_checksums,
    measure_shards,
    samples_per_shard,
    write_shards,
)
from clustering.shards.token_parts import flat_tokens
from clustering.work.work_store import WorkStore
from pipeline.corpus.manifest import SampleSchema
from pipeline.storage.blocks import whole_samples

CHUNK_DOCUMENTS = 1_024
"""Documents gathered at a time."""


def unit_name(unit: int) -> str:
    """Name of a unit's record in the work store."""
    return f"write/unit-{unit:05}.json"


def documents_name(unit: int) -> str:
    """Name of the table of a unit's documents."""
    return f"write/documents-{unit:05}.arrow"


def blocks_name(unit: int) -> str:
    """Name of the checksums of a unit's blocks."""
    return f"write/blocks-{unit:05}.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions:
    """What shards are like; the same for all units of a corpus."""

    schema: SampleSchema
    shard_format: str
    """A key of `SHARD_FORMATS`."""
    block_bytes: int
    """Size that blocks aim at."""
    shard_bytes: int
    """Size that shards aim at."""
    separator_id: int
    pad_id: int

    @property
    def samples_per_shard(self) -> int:
        """Of every shard but the last."""
        return samples_per_shard(self.schema, self.block_bytes, self.shard_bytes)

    def shards_per_unit(self, sort_bytes: int) -> int:
        """How many shards are written together out of about `sort_bytes` of memory."""
        shard_tokens_bytes = self.samples_per_shard * self.schema.sample_bytes
        return max(1, sort_bytes // shard_tokens_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteTask:
    """Writes the shards of a unit."""

    store: WorkStore
    options: ShardOptions
    num_runs: int
    shards_per_unit: int
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        """See `UnitTask`; counts samples."""
        options = self.options
        plan = self.store.array(UNITS)[unit]
        table, order = self._documents(plan)
        tokens, starts, lengths = flat_tokens(table["tokens"])
        starts, lengths = starts[order], lengths[order]
        stream = _stream(tokens, starts, lengths, options.separator_id)
        blocks = cut_blocks(
            _cut(stream, plan["skip"], plan["tokens"]),
            options.schema.tokens_per_sample,
            options.pad_id,
        )
        with self.store.scratch() as scratch:
            write_shards(
                blocks,
                scratch / "shards",
                options.schema,
                shard_format=options.shard_format,
                block_bytes=options.block_bytes,
                shard_bytes=options.shard_bytes,
                first_shard=unit * self.shards_per_unit,
            )
            begin = int(plan["skip"] > 0)
            places = table.drop_columns(["tokens"]).take(order[begin:])
            return self._publish(unit, scratch, places, lengths[begin:])

    def _documents(self, plan: Any) -> tuple[Any, NDArray[np.int64]]:
        """The documents of a unit out of all runs, and their leaf order.

        They are not brought into it: Arrow's `take` makes an int64 for every token, four times the tokens.
        """
        import pyarrow as pa

        keys, slices = [], []
        for run in range(self.num_runs):
            run_keys = self.store.array(keys_name(run))
            begin, end = slice_of_run(run_keys, plan)
            if begin < end:
                keys.append(run_keys[begin:end])
                slices.append(self.store.rows(run_name(run), begin, end))
        merged = np.concatenate(keys)
        order = np.lexsort((merged["document"], merged["key"], merged["leaf"]))
        return pa.concat_tables(slices).combine_chunks(), order

    def _publish(self, unit: int, folder: Path, places: Any, lengths: NDArray[np.int64]) -> int:
        import pyarrow as pa

        options, store = self.options, self.store
        first_sample = unit * self.shards_per_unit * options.samples_per_shard
        shards = measure_shards(
            folder, options.schema, options.shard_format, first_sample=first_sample
        )
        block_bytes = whole_samples(options.block_bytes, options.schema)
        checksums = block_checksums(folder, shards, block_bytes)
        for shard in shards:
            store.publish_file(f"write/{shard.file}", folder / shard.file)
        store.publish_array(blocks_name(unit), checksums)
        column = pa.array(lengths.astype(np.int32))
        store.publish_table(documents_name(unit), places.append_column("tokens", column))
        index = SHARD_FORMATS[options.shard_format].index(folder / "shards")
        record = {"shards": [asdict(shard) for shard in shards], "index": index}
        store.publish(unit_name(unit), json.dumps(record).encode())
        return sum(shard.samples for shard in shards)


def _stream(
    tokens: Tokens, starts: NDArray[np.int64], lengths: NDArray[np.int64], separator: int
) -> Iterator[Tokens]:
    """Tokens of the documents, each followed by the separator, in chunks."""
    for begin in range(0, len(starts), CHUNK_DOCUMENTS):
        chunk = slice(begin, begin + CHUNK_DOCUMENTS)
        yield join_documents(tokens, starts[chunk], lengths[chunk], separator)


def _cut(chunks: Iterator[Tokens], skip: int, count: int) -> Iterator[Tokens]:
    """`count` tokens of a stream, after the first `skip`."""
    for chunk in chunks:
        kept = chunk[skip : skip + count]
        skip = max(0, skip - len(chunk))
        count -= len(kept)
        if len(kept):
            yield kept
