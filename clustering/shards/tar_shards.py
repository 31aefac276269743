"""Samples to tar shards, which stock `webdataset` reads: one `.npy` member per sample, at equal distances.

A member is a header of 512 bytes, the `.npy` header, the tokens, and zeros up to the next multiple of 512.
All samples have one dtype and length, so all `.npy` headers are alike.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clustering.shards.packing import Tokens
from pipeline.corpus.manifest import SampleSchema, ShardEntry, file_entry
from pipeline.samples.tar_groups import RECORD_BYTES

NAME_BYTES = 100
"""A header begins with the member's name, filled up with zeros."""
OWNER = "braidstream"


class TarShards:
    """Members `000000000.npy`, `000000001.npy`, …, numbered through all shards."""

    marker = "shard.000000.tar"

    def schema(self, tokens_per_sample: int, dtype: str) -> SampleSchema:
        """See `ShardFormat`."""
        sample_bytes = tokens_per_sample * np.dtype(dtype).itemsize
        member_bytes = len(_npy_header(tokens_per_sample, dtype)) + sample_bytes
        records = 1 + -(-member_bytes // RECORD_BYTES)
        return SampleSchema(
            tokens_per_sample=tokens_per_sample,
            dtype=dtype,
            stride_bytes=records * RECORD_BYTES,
            column="npy",
        )

    def write(
        self,
        samples: Iterable[Tokens],
        folder: Path,
        schema: SampleSchema,
        samples_per_shard: int,
        *,
        first_shard: int = 0,
    ) -> None:
        """See `ShardFormat`; the writer is webdataset's, with everything fixed that would differ by run."""
        from webdataset import TarWriter

        folder.mkdir(parents=True)
        header = _npy_header(schema.tokens_per_sample, schema.dtype)
        number = first_shard * samples_per_shard
        with ExitStack() as opened:
            for rows in samples:
                for row in np.ascontiguousarray(rows, dtype=schema.dtype):
                    if number % samples_per_shard == 0:
                        opened.close()
                        path = folder / f"shard.{number // samples_per_shard:06}.tar"
                        tar = TarWriter(str(path), encoder=False, mtime=0, user=OWNER, group=OWNER)
                        opened.enter_context(tar)
                    tar.write({"__key__": _key(number), "npy": header + row.tobytes()})
                    number += 1

    def measure(
        self, corpus: Path, schema: SampleSchema, *, first_sample: int = 0
    ) -> tuple[ShardEntry, ...]:
        """See `ShardFormat`."""
        header = _npy_header(schema.tokens_per_sample, schema.dtype)
        entries, number = [], first_sample
        for path in sorted((corpus / "shards").glob("shard.*.tar")):
            content = np.memmap(path, dtype=np.uint8, mode="r")
            members = content[: len(content) // schema.stride_bytes * schema.stride_bytes]
            members = members.reshape(-1, schema.stride_bytes)
            samples = int((members[:, 0] != 0).sum())
            members = members[:samples]
            names = np.ascontiguousarray(members[:, :NAME_BYTES]).view(f"S{NAME_BYTES}")[:, 0]
            expected = [f"{_key(number + i)}.npy".encode() for i in range(samples)]
            headers = members[:, RECORD_BYTES : RECORD_BYTES + len(header)]
            assert names.tolist() == expected, f"{path.name}: members are not at equal distances"
            assert (headers == np.frombuffer(header, np.uint8)).all(), (
                f"{path.name}: .npy headers differ"
            )
            file = file_entry(corpus, f"shards/{path.name}")
            entries.append(
                ShardEntry(
                    **asdict(file),
                    samples=samples,
                    data_offset=RECORD_BYTES + len(header),
                    data_bytes=(samples - 1) * schema.stride_bytes + schema.sample_bytes,
                )
            )
            number += samples
        return tuple(entries)

    def index(self, folder: Path) -> list[Any]:
        """See `ShardFormat`: tars have none."""
        return []

    def write_index(self, folder: Path, entries: Iterable[Any]) -> None:
        """See `ShardFormat`: tars have none."""


def _key(number: int) -> str:
    return f"{number:09}"


def _npy_header(tokens_per_sample: int, dtype: str) -> bytes:
    """What precedes the tokens in an `.npy` file of one sample."""
    file = io.BytesIO()
    np.save(file, np.zeros(tokens_per_sample, dtype=np.dtype(dtype).newbyteorder("<")))
    return file.getvalue()[: -tokens_per_sample * np.dtype(dtype).itemsize]
