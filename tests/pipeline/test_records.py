"""Samples of varying length by position: from mapped shards, and from blocks that they straddle."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pipeline import Batch, Mixture, MixtureStream, open_corpus
from pipeline.corpus.manifest import FileEntry, Manifest, file_entry
from pipeline.errors import CorpusError
from pipeline.samples.records import RecordReader
from pipeline.storage.blocks import BlockGrid
from pipeline.storage.storage import LocalStorage
from tests.foreign_shards import import_folder, text_of, write_mds_texts, write_tars
from tests.servers.file_server import FileServer

BLOCK_BYTES = 700
"""Some samples are shorter than this, some take three blocks."""
SIZES = {"books": 40, "news": 25, "wiki": 60}


def local_reader(folder: Path, manifest: Manifest, **options: Any) -> RecordReader:
    grid = BlockGrid(manifest.shards, manifest.blocks.block_bytes)
    return RecordReader(LocalStorage(folder), None, grid, manifest, **options)


@pytest.fixture(params=["mds", "webdataset"])
def imported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Manifest]:
    write = write_mds_texts if request.param == "mds" else write_tars
    for name, size in SIZES.items():
        write(tmp_path / "data" / name, name, size)
    return tmp_path / "data", import_folder(tmp_path / "data", block_bytes=BLOCK_BYTES)


def expected_texts() -> list[str]:
    return [text_of(name, i) for name in sorted(SIZES) for i in range(SIZES[name])]


def texts(samples: list[Any]) -> list[str]:
    return [s["text"] if "text" in s else s["txt"].decode() for s in samples]


def test_every_position_in_any_order(imported: tuple[Path, Manifest]) -> None:
    reader = local_reader(*imported)
    order = np.random.default_rng(0).permutation(imported[1].num_samples)
    expected = expected_texts()
    assert texts(reader.copy(order)) == [expected[position] for position in order]


def test_blocks_from_a_store_give_the_same_samples(
    imported: tuple[Path, Manifest], file_server: FileServer, tmp_path: Path, new_prefix: str
) -> None:
    folder, manifest = imported
    shutil.copytree(folder, file_server.folder / new_prefix)
    address = file_server.store.address(new_prefix)
    reader = open_corpus(address, cache=tmp_path / "cache", cache_bytes=1 << 16).reader
    expected = expected_texts()
    rng = np.random.default_rng(1)
    for _ in range(20):
        positions = rng.integers(0, manifest.num_samples, 16)
        reader.read_ahead(rng.integers(0, manifest.num_samples, 8))
        assert texts(reader.copy(positions)) == [expected[position] for position in positions]


@pytest.mark.usefixtures("quick_loaders")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_records_gives_dictionaries_and_resumes(
    imported: tuple[Path, Manifest], workers: int
) -> None:
    folder, _ = imported
    expected = expected_texts()
    stream = stream_of(folder)
    batches = batches_of(stream, workers)
    got = [next(batches) for _ in range(5)]
    state = stream.state_dict()
    got += [next(batches) for _ in range(5)]
    for batch in got:
        assert all(isinstance(sample, dict) for sample in batch.samples)
        assert texts(batch.samples) == [expected[position] for position in batch.positions]
    resumed = stream_of(folder)
    resumed.load_state_dict(state)
    again = batches_of(resumed, workers)
    for batch in got[5:]:
        assert next(again).samples == batch.samples
    with pytest.raises(TypeError, match=r"use batch\.samples"):
        _ = got[0].tokens


def stream_of(folder: Path) -> MixtureStream:
    corpus = open_corpus(folder)
    return MixtureStream(corpus, Mixture.uniform(corpus.domains(level=1)), batch_size=12)


def batches_of(stream: MixtureStream, workers: int) -> Iterator[Batch]:
    if not workers:
        return stream
    loader = DataLoader(stream, None, num_workers=workers, multiprocessing_context="forkserver")
    return iter(loader)


def damaged(folder: Path, manifest: Manifest, extents: np.ndarray[Any, Any]) -> Manifest:
    """The manifest, with another array of extents."""
    assert manifest.records is not None
    np.save(folder / "index" / "extents.npy", extents)
    records = replace(manifest.records, extents=file_entry(folder, "index/extents.npy"))
    return replace(manifest, records=records)


@pytest.mark.parametrize("row", [[0, 10**9], [10**9, 5], [2**63, 5], [100, 0]])
def test_extents_outside_the_shard_are_refused(
    imported: tuple[Path, Manifest], row: list[int]
) -> None:
    folder, manifest = imported
    extents = np.load(folder / "index" / "extents.npy")
    extents[3] = row
    reader = local_reader(folder, damaged(folder, manifest, extents))
    reader.copy(np.array([0, 1, 2, 4]))
    with pytest.raises(CorpusError, match=r"sample 3 is said to take .* the extents are damaged"):
        reader.copy(np.array([2, 3]))


@pytest.mark.parametrize(
    "extents",
    [
        np.zeros((3, 2), np.uint64),
        np.zeros((125, 2), np.int64),
        np.asfortranarray(np.zeros((125, 2), np.uint64)),
        np.array([{"a": 1}] * 125, dtype=object),
    ],
    ids=["too few", "int64", "column-major", "pickled objects"],
)
def test_extents_of_another_kind_are_refused(
    imported: tuple[Path, Manifest], extents: np.ndarray[Any, Any]
) -> None:
    folder, manifest = imported
    with pytest.raises(CorpusError, match="not the array of extents that the manifest describes"):
        local_reader(folder, damaged(folder, manifest, extents))


def test_a_sample_that_does_not_decode_is_named(imported: tuple[Path, Manifest]) -> None:
    folder, manifest = imported
    extents = np.load(folder / "index" / "extents.npy")
    extents[7] += np.array([3, 0], np.uint64)
    extents[7, 1] -= np.uint64(30)
    reader = local_reader(folder, damaged(folder, manifest, extents))
    with pytest.raises(CorpusError, match=r"sample 7, in books/.*, does not decode"):
        reader.copy(np.array([7]))


def test_a_tar_sample_does_not_lose_a_member_whose_header_is_damaged(tmp_path: Path) -> None:
    shard = write_tars(tmp_path / "data" / "a", "a", 3) / "000000.tar"
    import_folder(tmp_path / "data")
    with tarfile.open(shard) as tar:
        headers = [member.offset for member in tar.getmembers()]
    intact = shard.read_bytes()
    for begin in headers:
        shard.write_bytes(intact[: begin + 2] + b"?" + intact[begin + 3 :])
        reader = open_corpus(tmp_path / "data").reader
        with pytest.raises(CorpusError, match="does not decode"):
            reader.copy(np.arange(3))


def test_a_file_that_is_no_array_is_refused(imported: tuple[Path, Manifest]) -> None:
    folder, manifest = imported
    assert manifest.records is not None
    (folder / "index" / "extents.npy").write_bytes(b"no array")
    entry: FileEntry = file_entry(folder, "index/extents.npy")
    manifest = replace(manifest, records=replace(manifest.records, extents=entry))
    with pytest.raises(CorpusError, match="not the array of extents"):
        local_reader(folder, manifest)
