"""Samples to MDS shards, which stock `streaming.StreamingDataset` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from clustering.shards.packing import Tokens
from pipeline.corpus.manifest import SampleSchema, ShardEntry

INDEX_VERSION = 2
"""Of the index.json that MDSWriter writes."""


class MdsShards:
    """Samples back to back behind the shard's table of offsets."""

    marker = "index.json"

    def schema(self, tokens_per_sample: int, dtype: str) -> SampleSchema:
        """See `ShardFormat`."""
        stride = tokens_per_sample * np.dtype(dtype).itemsize
        return SampleSchema(tokens_per_sample=tokens_per_sample, dtype=dtype, stride_bytes=stride)

    def write(
        self,
        samples: Iterable[Tokens],
        folder: Path,
        schema: SampleSchema,
        samples_per_shard: int,
        *,
        first_shard: int = 0,
    ) -> None:
        """See `ShardFormat`; the writer is MDSWriter, which numbers from 0."""
        from streaming import MDSWriter

        encoding = f"ndarray:{schema.dtype}:{schema.tokens_per_sample}"
        with MDSWriter(
            out=str(folder), columns={schema.column: encoding}, hashes=["sha256"]
        ) as writer:
            # The writer begins a shard when the next sample would exceed this, by its own accounting.
            per_sample = schema.stride_bytes + writer.extra_bytes_per_sample
            writer.size_limit = writer.extra_bytes_per_shard + samples_per_shard * per_sample
            for rows in samples:
                for row in np.ascontiguousarray(rows, dtype=schema.dtype):
                    writer.write({schema.column: row})
        if first_shard:
            self._renumber(folder, first_shard)

    def measure(
        self, corpus: Path, schema: SampleSchema, *, first_sample: int = 0
    ) -> tuple[ShardEntry, ...]:
        """See `ShardFormat`."""
        entries = []
        for shard in self.index(corpus / "shards"):
            raw = shard["raw_data"]
            name = f"shards/{raw['basename']}"
            samples = int(shard["samples"])
            with (corpus / name).open("rb") as file:
                head = np.fromfile(file, dtype="<u4", count=samples + 2)
            offsets = head[1:].astype(np.int64)
            assert head[0] == samples, f"{name}: header and index disagree on the number of samples"
            assert (np.diff(offsets) == schema.stride_bytes).all(), (
                f"{name}: samples differ in length"
            )
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

    def index(self, folder: Path) -> list[Any]:
        """See `ShardFormat`."""
        shards: list[Any] = json.loads((folder / self.marker).read_text("utf-8"))["shards"]
        return shards

    def write_index(self, folder: Path, entries: Iterable[Any]) -> None:
        """See `ShardFormat`; the form is MDSWriter's."""
        content = {"version": INDEX_VERSION, "shards": list(entries)}
        (folder / self.marker).write_text(json.dumps(content, sort_keys=True), encoding="utf-8")

    def _renumber(self, folder: Path, first_shard: int) -> None:
        entries = self.index(folder)
        for number in reversed(range(len(entries))):
            raw = entries[number]["raw_data"]
            path = folder / raw["basename"]
            raw["basename"] = f"shard.{first_shard + number:05}.mds"
            path.rename(folder / raw["basename"])
        self.write_index(folder, entries)
