"""Shards of both formats: what stock readers see is what ours sees, at every position."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clustering.shards import shards as shards_module
from clustering.shards.shards import (
    SHARD_FORMATS,
    measure_shards,
    write_block_checksums,
    write_shards,
)
from pipeline.corpus.manifest import SampleSchema, ShardEntry
from pipeline.samples.shards import MappedReader
from pipeline.storage.blocks import BlockGrid, block_checksum, whole_samples
from pipeline.storage.storage import LocalStorage

FORMATS = sorted(SHARD_FORMATS)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 64 KiB, so that a test has many."""
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 1 << 16)


def numbered(count: int, schema: SampleSchema, seed: int = 0) -> NDArray[np.generic]:
    limit = np.iinfo(schema.dtype).max
    rng = np.random.default_rng(seed)
    return rng.integers(0, limit, (count, schema.tokens_per_sample)).astype(schema.dtype)


def write(
    corpus: Path, samples: NDArray[np.generic], schema: SampleSchema, name: str, block_bytes: int
) -> tuple[ShardEntry, ...]:
    corpus.mkdir(exist_ok=True)
    parts: Iterator[NDArray[np.generic]] = iter(np.array_split(samples, 7))
    write_shards(parts, corpus / "shards", schema, shard_format=name, block_bytes=block_bytes)
    return measure_shards(corpus, schema, name)


def stock_samples(corpus: Path, schema: SampleSchema, name: str) -> NDArray[np.generic]:
    """All samples as the stock reader of the format gives them, in its order."""
    if name == "mds":
        from streaming import StreamingDataset

        dataset = StreamingDataset(local=str(corpus / "shards"), shuffle=False, batch_size=1)
        return np.stack([dataset[i]["tokens"] for i in range(len(dataset))])
    import webdataset

    tars = sorted(map(str, (corpus / "shards").glob("*.tar")))
    dataset = webdataset.WebDataset(tars, shardshuffle=False).decode()
    samples = list(dataset)
    gc.collect()  # or the tars that webdataset leaves open are another test's warning
    assert [int(sample["__key__"]) for sample in samples] == list(range(len(samples)))
    return np.stack([sample["npy"] for sample in samples])


@pytest.mark.usefixtures("small_shards")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves tars open
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("tokens", "dtype"), [(2, "uint16"), (32, "uint16"), (300, "uint32")])
def test_stock_reader_and_ours_give_the_same_samples_in_the_same_order(
    tmp_path: Path, name: str, tokens: int, dtype: str
) -> None:
    schema = SHARD_FORMATS[name].schema(tokens, dtype)
    samples = numbered(1_000, schema)
    entries = write(tmp_path, samples, schema, name, 1 << 12)
    assert np.array_equal(stock_samples(tmp_path, schema, name), samples)
    reader = MappedReader(LocalStorage(tmp_path), entries, schema)
    order = np.random.default_rng(1).permutation(len(samples))
    assert np.array_equal(reader.copy(reader.handles(order)), samples[order])


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("block_bytes", [1, 1 << 12, 10_000, 1 << 20])
def test_a_full_shard_holds_a_whole_number_of_blocks(
    tmp_path: Path, name: str, block_bytes: int
) -> None:
    schema = SHARD_FORMATS[name].schema(100, "uint16")
    *full, last = write(tmp_path, numbered(2_000, schema), schema, name, block_bytes)
    block = whole_samples(block_bytes, schema)
    assert block % schema.stride_bytes == 0
    for entry in full:
        assert entry.samples * schema.stride_bytes % block == 0
        assert max(block, (1 << 16) - block) <= entry.samples * schema.stride_bytes
        assert entry.samples * schema.stride_bytes <= max(block, 1 << 16)
    assert sum(entry.samples for entry in full) + last.samples == 2_000


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("name", FORMATS)
def test_checksums_are_those_of_the_blocks(tmp_path: Path, name: str) -> None:
    schema = SHARD_FORMATS[name].schema(64, "uint16")
    entries = write(tmp_path, numbered(700, schema), schema, name, 1 << 13)
    block = write_block_checksums(tmp_path, entries, whole_samples(1 << 13, schema))
    grid = BlockGrid(entries, block.block_bytes)
    stored = np.load(tmp_path / block.file)
    assert stored.shape == (grid.num_blocks,)
    assert stored.dtype == np.uint64
    for number in range(grid.num_blocks):
        extent = grid.extent(number)
        content = (tmp_path / entries[extent.shard].file).read_bytes()[extent.begin : extent.end]
        assert len(content) == extent.end - extent.begin
        assert block_checksum(content) == stored[number]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("name", FORMATS)
def test_equal_samples_make_equal_files(tmp_path: Path, name: str) -> None:
    schema = SHARD_FORMATS[name].schema(64, "uint16")
    first, second = (
        write(tmp_path / folder, numbered(600, schema), schema, name, 1 << 13) for folder in "ab"
    )
    assert first == second
    for entry in first:
        content = (tmp_path / "b" / entry.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.sha256


def test_a_tar_whose_members_are_uneven_is_noticed(tmp_path: Path) -> None:
    from webdataset import TarWriter

    schema = SHARD_FORMATS["webdataset"].schema(8, "uint16")
    write(tmp_path, numbered(3, schema), schema, "webdataset", 1 << 12)
    with TarWriter(str(tmp_path / "shards" / "shard.000001.tar"), mtime=0) as tar:
        for number in (3, 5):
            tar.write({"__key__": f"{number:09}", "npy": np.zeros(8, np.uint16)})
    with pytest.raises(AssertionError, match="not at equal distances"):
        measure_shards(tmp_path, schema, "webdataset")
