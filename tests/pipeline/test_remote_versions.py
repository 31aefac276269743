"""Versions of a corpus in an object store: pushed, read while another one is pushed, cached, pulled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import Corpus, CorpusError, open_corpus
from pipeline.corpus.manifest import Manifest
from pipeline.stores.object_store import ObjectStore
from pipeline.transfer.pull import pull
from pipeline.transfer.push import push
from pipeline.transfer_command import pull as pull_command
from tests.corpora import add_segment, position_of, write_corpus
from tests.processes import stream_processes
from tests.servers.fault_proxy import FaultProxy
from tests.servers.store_server import StoreServer

SIZES = [300, 200, 100, 400]
ADDED = [50, 0, 120, 30]


@pytest.fixture
def proxy(s3: StoreServer, fault_proxy: Callable[[StoreServer], FaultProxy]) -> FaultProxy:
    return fault_proxy(s3)


@pytest.fixture
def address(proxy: FaultProxy, s3: StoreServer, new_prefix: str) -> str:
    return s3.address(new_prefix)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(
        tmp_path / "corpus", SIZES, levels=(1, 4), block_bytes=1024, shard_bytes=5000
    )


def all_of(corpus: Corpus) -> list[int]:
    return position_of(corpus.read(np.arange(corpus.num_samples))).tolist()


def read_all(address: str, cache: Path) -> None:
    assert all_of(open_corpus(address, cache=cache)) == list(range(sum(SIZES)))


def test_pushing_over_an_earlier_version_sends_what_was_added_and_keeps_that_version(
    folder: Path, address: str, tmp_path: Path
) -> None:
    first = push(folder, address)
    reader = open_corpus(address, cache=tmp_path / "reader")
    add_segment(folder, ADDED)
    second = push(folder, address)
    assert second.kept_files == first.copied_files
    newest = open_corpus(address, cache=tmp_path / "newest")
    assert newest.manifest == Manifest.read(folder)
    assert all_of(newest) == list(range(sum(SIZES) + sum(ADDED)))
    # The reader fetches its blocks only now, from the version that it opened.
    assert all_of(reader) == list(range(sum(SIZES)))
    older = open_corpus(address, version=1, cache=tmp_path / "older")
    assert older.fingerprint == reader.fingerprint


def test_a_push_of_an_earlier_version_over_a_later_one_is_refused(
    folder: Path, address: str, tmp_path: Path
) -> None:
    add_segment(folder, ADDED)
    push(folder, address)
    (folder / "manifest.v1.json").rename(folder / "manifest.json")
    with pytest.raises(CorpusError, match="holds another corpus"):
        push(folder, address)
    assert open_corpus(address, cache=tmp_path / "cache").manifest.version == 2


def test_pull_fetches_one_version_and_later_what_was_added_to_it(
    folder: Path, address: str, tmp_path: Path
) -> None:
    push(folder, address)
    add_segment(folder, ADDED)
    push(folder, address)
    copy = tmp_path / "copy"
    assert pull_command([address, str(copy), "--version", "1"]) == 0
    assert open_corpus(copy).manifest.version == 1
    done = pull(address, copy)
    assert done.copied_files < done.kept_files
    assert all_of(open_corpus(copy)) == list(range(sum(SIZES) + sum(ADDED)))
    assert all_of(open_corpus(copy, version=1)) == list(range(sum(SIZES)))


def test_a_new_version_begins_with_the_cached_blocks_of_the_earlier_one(
    folder: Path, address: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    push(folder, address)
    # While a process uses it, a cache is left alone.
    process = stream_processes().Process(target=read_all, args=(address, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0
    add_segment(folder, ADDED)
    push(folder, address)
    proxy.clear()
    second = open_corpus(address, cache=tmp_path)
    assert all_of(second) == list(range(sum(SIZES) + sum(ADDED)))
    shards = {request.path for request in proxy.requests if request.path.endswith(".mds")}
    assert shards
    assert all("/segments/0002/" in path for path in shards)


def test_two_versions_are_read_side_by_side_through_one_cache_folder(
    folder: Path, address: str, tmp_path: Path
) -> None:
    push(folder, address)
    first = open_corpus(address, cache=tmp_path)
    half = sum(SIZES) // 2
    assert position_of(first.read(np.arange(half))).tolist() == list(range(half))
    add_segment(folder, ADDED)
    push(folder, address)
    assert all_of(open_corpus(address, cache=tmp_path)) == list(range(sum(SIZES) + sum(ADDED)))
    assert all_of(first) == list(range(sum(SIZES)))


def test_an_unfinished_push_of_a_new_version_leaves_the_earlier_one_and_is_continued(
    folder: Path, address: str, tmp_path: Path
) -> None:
    push(folder, address)
    add_segment(folder, ADDED)
    index = folder / "segments" / "0002" / "shards" / "index.json"
    content = index.read_bytes()
    index.unlink()
    with pytest.raises(CorpusError, match="cannot be read"):
        push(folder, address)
    assert open_corpus(address, cache=tmp_path).manifest.version == 1
    assert "manifest.json.partial" in {name for name, _ in ObjectStore(address).list()}
    index.write_bytes(content)
    push(folder, address)
    assert open_corpus(address, cache=tmp_path).manifest.version == 2
