"""Whatever store, network and disk do: the right samples, or an error that says what happened."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pipeline import Corpus, StorageError, open_corpus
from pipeline.stores.object_store import ObjectStore
from pipeline.stores.retries import Retries
from tests.pipeline.remote_corpus import (
    BLOCK_BYTES,
    samples,
    start_stream,
    upload,
    write_small_corpus,
)
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.servers.store_server import StoreServer

STEPS = 30
SMALLEST_CACHE = 8 * 4096
PATIENT = Retries(attempts=20, request_seconds=0.25)
UNHURRIED = Retries(attempts=20, request_seconds=1.0)
"""Half of what a stall takes, and more than any request does on a busy machine: each retry is a fault's."""
IMPATIENT = Retries(attempts=3, request_seconds=0.2)

StartProxy = Callable[[StoreServer], FaultProxy]
Open = Callable[..., Corpus]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_corpus(tmp_path_factory.mktemp("faults") / "corpus")


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[np.ndarray]:
    return samples(start_stream(open_corpus(folder)), STEPS)


@pytest.fixture(scope="module")
def address(folder: Path, s3_server: StoreServer) -> str:
    address = s3_server.address("faults")
    with pytest.MonkeyPatch.context() as monkeypatch:
        s3_server.use(monkeypatch)
        upload(folder, address)
    return address


@pytest.fixture
def proxy(s3_server: StoreServer, fault_proxy: StartProxy) -> FaultProxy:
    proxy = fault_proxy(s3_server)
    proxy.stall_seconds = 2
    return proxy


@pytest.fixture
def open_with(
    address: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Open:
    """Open the corpus through the proxy with a policy of retries."""

    def open_with(retries: Retries, cache_bytes: int = 1 << 30) -> Corpus:
        with monkeypatch.context() as patch:
            patch.setattr(
                "pipeline.corpus.corpus.ObjectStore", partial(ObjectStore, retries=retries)
            )
            return open_corpus(address, cache=tmp_path / "cache", cache_bytes=cache_bytes)

    return open_with


@pytest.mark.parametrize("chance", [0.1, 0.3])
@pytest.mark.parametrize("fault", Fault)
def test_faults_at_random_change_no_sample(
    expected: list[np.ndarray], proxy: FaultProxy, open_with: Open, fault: Fault, chance: float
) -> None:
    corpus = open_with(PATIENT)
    proxy.chances = {fault: chance}
    assert np.array_equal(samples(start_stream(corpus), STEPS), expected)
    everything = np.arange(corpus.num_samples)
    assert np.array_equal(_numbers(corpus.read(everything)), everything)
    assert proxy.injected[fault] > 0


def test_faults_at_random_change_no_sample_with_the_smallest_cache(
    expected: list[np.ndarray], proxy: FaultProxy, open_with: Open
) -> None:
    corpus = open_with(PATIENT, SMALLEST_CACHE)
    proxy.chances = dict.fromkeys(Fault, 0.01)
    assert np.array_equal(samples(start_stream(corpus), STEPS), expected)
    assert len(proxy.injected) > 3


@pytest.mark.parametrize("fault", Fault)
def test_one_fault_on_one_block_changes_no_sample(
    expected: list[np.ndarray], proxy: FaultProxy, open_with: Open, fault: Fault
) -> None:
    corpus = open_with(UNHURRIED)
    positions = _numbers(expected[0])
    block, _ = corpus.grid.locate(*_place(corpus, positions))
    shard, begin, end = corpus.grid.extent(int(block[0]))
    name = corpus.manifest.shards[shard].file
    proxy.once(fault, name, byte=begin)
    assert np.array_equal(samples(start_stream(corpus), STEPS), expected)
    assert proxy.injected == {fault: 1}
    of_block = [r for r in proxy.requests if r.path.endswith(name) and r.start == begin]
    assert [(r.start, r.end) for r in of_block] == [(begin, end)] * 2
    assert corpus.statistics.retries == 1


@pytest.mark.parametrize("fault", Fault)
def test_spent_retries_are_an_error_that_names_the_place_and_the_stream_goes_on_afterwards(
    expected: list[np.ndarray], proxy: FaultProxy, open_with: Open, fault: Fault
) -> None:
    stream = start_stream(open_with(IMPATIENT))
    proxy.chances = {fault: 1.0}
    with pytest.raises(StorageError) as caught:
        next(stream)
    message = str(caught.value)
    assert re.search(r"/faults/shards/shard\.0000\d\.mds, bytes [\d,]+ to [\d,]+: ", message)
    assert "Given up after 3 attempts" in message
    if fault is Fault.FLIP:
        assert re.search(r"expected XXH3-64 \w{16} for block \d+, found \w{16}", message)
    if fault is Fault.SHORT:
        assert re.search(r"expected [\d,]+ bytes, found \d+", message)
    proxy.chances = {}
    assert np.array_equal(samples(stream, STEPS), expected)


def test_a_block_that_stays_wrong_is_an_error_and_no_other_block_suffers(
    expected: list[np.ndarray], proxy: FaultProxy, open_with: Open
) -> None:
    corpus = open_with(IMPATIENT)
    shard, begin, _ = corpus.grid.extent(17)
    for _ in range(3):
        proxy.once(Fault.FLIP, corpus.manifest.shards[shard].file, byte=begin)
    positions = np.arange(corpus.num_samples)
    block, _ = corpus.grid.locate(*_place(corpus, positions))
    others = positions[block != 17]
    assert np.array_equal(_numbers(corpus.read(others)), others)
    with pytest.raises(StorageError, match="for block 17, found"):
        corpus.read(positions)
    assert np.array_equal(_numbers(corpus.read(positions)), positions)


@pytest.mark.usefixtures("quick_loaders")
def test_all_faults_together_before_workers_change_no_sample(
    address: str, expected: list[np.ndarray], proxy: FaultProxy, tmp_path: Path
) -> None:
    corpus = open_corpus(address, cache=tmp_path / "cache", cache_bytes=SMALLEST_CACHE)
    stalls = (Fault.STALL, Fault.STALL_MIDWAY)
    proxy.stall_seconds = 0.2
    proxy.chances = dict.fromkeys(Fault, 0.02)
    stream = start_stream(corpus)
    loader = DataLoader(stream, None, num_workers=2, multiprocessing_context="forkserver")
    batches = iter(loader)
    got = [next(batches).tokens for _ in range(STEPS // 2)]
    assert np.array_equal(got, expected[: STEPS // 2])
    assert sum(n for fault, n in proxy.injected.items() if fault not in stalls) > 0


def test_a_bit_that_flips_on_the_disk_is_found_and_the_block_fetched_again(
    proxy: FaultProxy, open_with: Open
) -> None:
    corpus = open_with(PATIENT)
    everything = np.arange(corpus.num_samples)
    corpus.read(everything)
    folder, num_blocks = corpus.cache.folder, corpus.grid.num_blocks
    del corpus
    gc.collect()
    (data,) = folder.glob(f"*-{BLOCK_BYTES}/data")
    _flip(data, [slot * 4096 + 3 for slot in range(0, num_blocks, 3)])
    for path in (folder / "files").glob("?" * 64):
        _flip(path, [path.stat().st_size - 1])
    proxy.clear()
    corpus = open_with(PATIENT)
    assert np.array_equal(_numbers(corpus.read(everything)), everything)
    fetched = [request for request in proxy.requests if request.path.endswith(".mds")]
    assert len(fetched) == -(-num_blocks // 3)


def _flip(path: Path, places: list[int]) -> None:
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 1 << place % 8
    path.write_bytes(content)


def _place(corpus: Corpus, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *(shard.samples for shard in corpus.manifest.shards)])
    shard = starts.searchsorted(positions, side="right") - 1
    assert corpus.manifest.sample is not None
    return shard, (positions - starts[shard]) * corpus.manifest.sample.stride_bytes


def _numbers(tokens: np.ndarray) -> np.ndarray:
    return tokens[:, 0].astype(np.int64) + (tokens[:, 1].astype(np.int64) << 16)
