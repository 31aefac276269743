"""A corpus behind an address: what is fetched, how often, and what is counted."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Corpus, Mixture, StorageError, open_corpus
from pipeline.corpus.manifest import FileEntry, file_entry
from pipeline.storage.cache_settings import CacheSettings
from pipeline.storage.remote import RemoteStorage
from pipeline.stores.object_store import PART_BYTES, ObjectStore
from pipeline.stores.retries import Retries
from tests.corpora import position_of
from tests.pipeline.remote_corpus import (
    BLOCK_BYTES,
    SAMPLE_BYTES,
    start_stream,
    upload,
    write_small_corpus,
)
from tests.processes import stream_processes
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.servers.store_server import StoreServer

EVERYTHING = np.arange(4000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_corpus(tmp_path_factory.mktemp("remote") / "corpus")


@pytest.fixture
def proxy(s3: StoreServer, fault_proxy: Callable[[StoreServer], FaultProxy]) -> FaultProxy:
    return fault_proxy(s3)


@pytest.fixture
def address(folder: Path, proxy: FaultProxy, s3: StoreServer, new_prefix: str) -> str:
    upload(folder, s3.address(new_prefix))
    proxy.clear()
    return s3.address(new_prefix)


def requests_for_blocks(proxy: FaultProxy) -> Counter[tuple[str, int | None]]:
    shards = [request for request in proxy.requests if request.path.endswith(".mds")]
    return Counter((request.path, request.start) for request in shards)


def read_everything(corpus: Corpus) -> None:
    assert np.array_equal(position_of(corpus.read(EVERYTHING)), EVERYTHING)


def test_every_block_is_fetched_once_and_counted(
    address: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    corpus = open_corpus(address, cache=tmp_path)
    read_everything(corpus)
    read_everything(corpus)
    num_blocks = corpus.grid.num_blocks
    assert set(requests_for_blocks(proxy).values()) == {1}
    assert len(requests_for_blocks(proxy)) == num_blocks
    statistics = corpus.statistics
    assert statistics.blocks_needed == 2 * num_blocks
    assert statistics.blocks_hit == num_blocks
    assert statistics.hit_rate == 0.5
    assert statistics.bytes_fetched == 4000 * SAMPLE_BYTES
    assert statistics.bytes_used == 2 * 4000 * SAMPLE_BYTES
    assert statistics.wait_seconds > 0
    assert statistics.retries == 0


def test_a_second_start_fetches_nothing_but_the_manifest(
    address: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    read_everything(open_corpus(address, cache=tmp_path))
    gc.collect()
    proxy.clear()
    corpus = open_corpus(address, cache=tmp_path)
    read_everything(corpus)
    assert {request.path.rsplit("/", 1)[1] for request in proxy.requests} == {"manifest.json"}
    assert corpus.statistics.hit_rate == 1
    assert corpus.statistics.bytes_fetched == 0


def test_a_number_of_bytes_may_be_written_as_a_float(address: str, tmp_path: Path) -> None:
    corpus = open_corpus(address, cache=tmp_path, cache_bytes=1e5)  # type: ignore[arg-type]
    read_everything(corpus)
    assert corpus.blocks._opened().cache.num_slots == 24  # type: ignore[union-attr]


def test_what_was_read_ahead_is_a_hit(address: str, proxy: FaultProxy, tmp_path: Path) -> None:
    corpus = open_corpus(address, cache=tmp_path)
    reader = corpus.reader
    reader.read_ahead(reader.handles(EVERYTHING[:1000]))
    soon = corpus.grid.locate(np.zeros(1, int), EVERYTHING[:1000:64] * SAMPLE_BYTES)[0]
    cache = corpus.blocks._opened().cache  # type: ignore[union-attr]
    while not cache.look_up(soon).there.all():
        threading.Event().wait(0.01)
    assert np.array_equal(position_of(corpus.read(EVERYTHING[:960])), EVERYTHING[:960])
    assert corpus.statistics.hit_rate == 1


def test_reading_ahead_takes_no_more_than_half_of_the_cache(
    address: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    corpus = open_corpus(address, cache=tmp_path, cache_bytes=20 * 4096)
    reader = corpus.reader
    reader.read_ahead(reader.handles(EVERYTHING))
    wanted = 10
    while len(requests_for_blocks(proxy)) < wanted:
        threading.Event().wait(0.01)
    corpus.read(EVERYTHING[-1:])
    assert len(requests_for_blocks(proxy)) == wanted + 1


def test_a_stream_reads_ahead_what_its_next_batches_need_under_any_mixture(
    address: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.fetcher._IDLE_SECONDS", 0.05)
    corpus = open_corpus(address, cache=tmp_path)
    stream = start_stream(corpus)
    next(stream)
    for thread in list(corpus.blocks._opened().fetcher._threads):  # type: ignore[union-attr]
        thread.join()
    fetched = requests_for_blocks(proxy)
    assert len(fetched) == corpus.grid.num_blocks // 2
    for _ in range(20):
        next(stream)
    assert requests_for_blocks(proxy) == fetched
    before = corpus.statistics
    stream.set_mixture(Mixture.from_weights(stream.view, [6, 5, 4, 3, 2, 1]))
    next(stream)
    after = corpus.statistics
    assert after.blocks_hit - before.blocks_hit == after.blocks_needed - before.blocks_needed > 0
    for _ in range(200):
        next(stream)
    assert set(requests_for_blocks(proxy).values()) == {1}


def test_threads_share_one_corpus(address: str, proxy: FaultProxy, tmp_path: Path) -> None:
    corpus = open_corpus(address, cache=tmp_path, cache_bytes=10 * 4096)
    wrong: list[object] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            positions = rng.integers(0, 4000, 30)
            if not np.array_equal(position_of(corpus.read(positions)), positions):
                wrong.append(positions)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pieces_of_different_lengths(address: str, folder: Path, tmp_path: Path) -> None:
    corpus = open_corpus(address, cache=tmp_path)
    assert corpus.blocks is not None
    blocks, offsets, lengths = np.array([3, 0, 3]), np.array([5, 0, 1000]), np.array([7, 1024, 24])
    shard = corpus.manifest.shards[0]
    data = (folder / shard.file).read_bytes()[shard.data_offset :]
    starts = blocks * BLOCK_BYTES + offsets
    expected = [data[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    assert corpus.blocks.read(blocks, offsets, lengths) == expected
    assert corpus.blocks.read(blocks, offsets, lengths) == expected
    assert corpus.statistics.bytes_used == 2 * lengths.sum()


def read_in_a_process(address: str, cache: Path, results: Any) -> None:
    corpus = open_corpus(address, cache=cache)
    positions = np.random.default_rng(os.getpid()).permutation(EVERYTHING)
    right = np.array_equal(position_of(corpus.read(positions)), positions)
    results.put((right, corpus.statistics.bytes_fetched))


def test_processes_that_start_together_download_everything_once(
    address: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    context: ForkServerContext = stream_processes()
    results = context.SimpleQueue()
    readers = [
        context.Process(target=read_in_a_process, args=(address, tmp_path, results))
        for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    outcomes = [results.get() for _ in readers]
    assert all(right for right, _ in outcomes)
    assert sum(fetched for _, fetched in outcomes) == 4000 * SAMPLE_BYTES
    files = Counter(request.path.rsplit("/", 1)[1] for request in proxy.requests)
    assert files["leaf_offsets.npy"] == files["blocks.npy"] == 1


def test_blocks_that_a_stopped_process_was_fetching_are_not_waited_for_without_end(
    address: str, tmp_path: Path
) -> None:
    corpus, stopped = (open_corpus(address, cache=tmp_path) for _ in range(2))
    for block in range(0, corpus.grid.num_blocks, 9):
        assert stopped.blocks._opened().cache.claim(block)  # type: ignore[union-attr]
    corpus._store.retries = Retries(request_seconds=0.5)  # type: ignore[union-attr]
    read_everything(corpus)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_reads_the_cache_and_says_that_it_cannot_fetch(
    address: str, tmp_path: Path
) -> None:
    corpus = open_corpus(address, cache=tmp_path)
    corpus.read(EVERYTHING[:10])
    receive, send = os.pipe()
    if (child := os.fork()) == 0:
        cached = np.array_equal(position_of(corpus.read(EVERYTHING[:10])), EVERYTHING[:10])
        try:
            corpus.read(EVERYTHING)
        except StorageError as error:
            os.write(send, f"{cached} {error}".encode())
        os._exit(0)
    os.close(send)
    answer = os.read(receive, 10_000).decode()
    os.close(receive)
    os.waitpid(child, 0)
    assert answer.startswith("True ")
    assert "forkserver" in answer
    read_everything(corpus)


@pytest.fixture
def large_file(s3: StoreServer, new_prefix: str, tmp_path: Path) -> tuple[str, FileEntry, bytes]:
    """A file of three parts."""
    content = np.random.default_rng(0).bytes(2 * PART_BYTES + 1000)
    (tmp_path / "large").write_bytes(content)
    ObjectStore(s3.address(new_prefix)).write("large", content)
    return s3.address(new_prefix), file_entry(tmp_path, "large"), content


def test_a_large_file_comes_in_parts_and_a_damaged_download_is_repeated(
    large_file: tuple[str, FileEntry, bytes], proxy: FaultProxy, tmp_path: Path
) -> None:
    address, entry, content = large_file
    storage = RemoteStorage(ObjectStore(address), tmp_path / "cache")
    proxy.clear()
    proxy.once(Fault.FLIP, "large", byte=PART_BYTES)
    assert storage.map(entry).tobytes() == content
    assert len(proxy.requests) == 6
    assert storage.read(entry) == content
    assert len(proxy.requests) == 6
    path = tmp_path / "cache" / "files" / entry.sha256
    path.write_bytes(content[:-1])
    assert storage.map(entry).tobytes() == content
    assert len(proxy.requests) == 9


def test_a_file_that_was_replaced_is_an_error_that_says_so(
    large_file: tuple[str, FileEntry, bytes], tmp_path: Path
) -> None:
    address, entry, content = large_file
    ObjectStore(address).write("large", content[::-1])
    with pytest.raises(
        StorageError, match=r"large, bytes 0 to [\d,]+: expected sha256 \w+…, found"
    ):
        RemoteStorage(ObjectStore(address), tmp_path / "cache").map(entry)


def test_an_empty_file_is_read_without_a_request(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    storage = RemoteStorage(ObjectStore("http://127.0.0.1:9/nobody"), tmp_path / "cache")
    assert storage.read(file_entry(tmp_path, "empty")) == b""


def test_the_cache_folder_is_the_one_that_is_said_most_closely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BRAIDSTREAM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert CacheSettings.of().folder == tmp_path / ".cache" / "braidstream"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which its specification has passed over
    assert CacheSettings.of().folder == tmp_path / ".cache" / "braidstream"
    monkeypatch.setenv("XDG_CACHE_HOME", "/all")
    assert CacheSettings.of().folder == Path("/all/braidstream")
    monkeypatch.setenv("BRAIDSTREAM_CACHE", "~/ours")
    assert CacheSettings.of().folder == tmp_path / "ours"
    assert CacheSettings.of("/this").folder == Path("/this")


def test_a_cache_folder_that_cannot_be_used_is_an_error_that_names_it(
    address: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be kept in .*/file/files: Not a directory"):
        open_corpus(address, cache=tmp_path / "file")
