"""Samples to MDS shards, which stock `streaming.StreamingDataset` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from clustering.packing import Tokens
from pipeline.manifest import SampleSchema, ShardEntry


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
        advance: Callable[[int], None],
    ) -> None:
        """See `ShardFormat`; the writer is MDSWriter."""
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
                advance(len(rows))

    def measure(self, corpus: Path, schema: SampleSchema) -> tuple[ShardEntry, ...]:
        """See `ShardFormat`."""
        index = json.loads((corpus / "shards" / self.marker).read_text("utf-8"))
        entries = []
        for shard in index["shards"]:
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
