from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StorageError
from pipeline.storage.fetcher import Fetcher

ROOT = Path(__file__).parents[2]


class Gate:
    """A `load` that lets blocks through one by one, and remembers in which order they were begun."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, bool]] = []
        self.failing: set[int] = set()
        self.gate = threading.Semaphore(0)
        self.changed = threading.Condition()

    def load(self, block: int, urgent: bool) -> bytes:
        with self.changed:
            self.begun.append((block, urgent))
            self.changed.notify_all()
        self.gate.acquire()
        if block in self.failing:
            raise StorageError(f"no block {block}")
        return b"%d" % block

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, timeout=10)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.gate.release(1000)


def numbers(*blocks: int) -> np.ndarray:
    return np.array(blocks, dtype=np.int64)


def test_what_is_fetched_arrives_as_it_comes() -> None:
    fetcher = Fetcher(lambda block, urgent: b"%d" % block, connections=4)
    with fetcher.fetch(np.arange(100)) as arriving:
        assert dict(arriving) == {block: b"%d" % block for block in range(100)}
    with fetcher.fetch(numbers()) as arriving:
        assert list(arriving) == []


def test_urgent_blocks_go_before_those_read_ahead(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=1)
    fetcher.read_ahead(numbers(1, 2, 3))
    gate.wait_for(1)
    with fetcher.fetch(numbers(8, 9)) as arriving:
        gate.gate.release(5)
        assert list(arriving) == [(8, b"8"), (9, b"9")]
    gate.wait_for(5)
    assert gate.begun == [(1, False), (8, True), (9, True), (2, False), (3, False)]


def test_read_ahead_leaves_a_connection_for_urgent_blocks(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=4)
    fetcher.read_ahead(np.arange(10))
    gate.wait_for(3)
    with fetcher.fetch(numbers(50)):
        gate.wait_for(4)
    assert gate.begun[3] == (50, True)


def test_a_newer_list_replaces_what_was_not_begun(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=1)
    fetcher.read_ahead(numbers(1, 2, 3))
    gate.wait_for(1)
    fetcher.read_ahead(numbers(7, 3))
    gate.gate.release(3)
    gate.wait_for(3)
    assert [block for block, _ in gate.begun] == [1, 7, 3]


def test_a_block_under_way_is_waited_for_not_fetched_again(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=4)
    fetcher.read_ahead(numbers(5))
    gate.wait_for(1)
    with fetcher.fetch(numbers(5)) as one, fetcher.fetch(numbers(5)) as other:
        gate.gate.release(1)
        assert list(one) == list(other) == [(5, b"5")]
    assert gate.begun == [(5, False)]


def test_a_failure_reaches_the_caller_and_the_next_call_tries_again(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=2)
    gate.failing.add(4)
    gate.gate.release(3)
    with pytest.raises(StorageError, match="no block 4"), fetcher.fetch(numbers(4)) as arriving:
        list(arriving)
    gate.failing.clear()
    with fetcher.fetch(numbers(4)) as arriving:
        assert list(arriving) == [(4, b"4")]


def test_a_panic_of_native_code_reaches_the_caller_too() -> None:
    """pyo3's is no Exception, so that nobody handles it by accident."""

    class Panic(BaseException):
        pass

    def load(block: int, urgent: bool) -> bytes:
        raise Panic("index out of bounds")

    fetcher = Fetcher(load, connections=1)
    with pytest.raises(Panic, match="out of bounds"), fetcher.fetch(numbers(4)) as arriving:
        list(arriving)


def test_a_thread_that_cannot_be_started_is_an_error_and_not_counted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    fetcher = Fetcher(lambda block, urgent: b"%d" % block, connections=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"), fetcher.fetch(numbers(4)):
            pass
        with pytest.raises(RuntimeError, match="new thread"):
            fetcher.read_ahead(numbers(5))
    with fetcher.fetch(numbers(4)) as arriving:
        assert list(arriving) == [(4, b"4")]


def test_a_failure_of_reading_ahead_is_quiet_until_the_block_is_needed(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=2)
    gate.failing.add(4)
    gate.gate.release(2)
    fetcher.read_ahead(numbers(4))
    gate.wait_for(1)
    with fetcher.fetch(numbers(6)) as arriving:
        assert list(arriving) == [(6, b"6")]
    gate.gate.release(1)
    with pytest.raises(StorageError, match="no block 4"), fetcher.fetch(numbers(4)) as arriving:
        list(arriving)


def test_a_failure_that_began_before_a_caller_came_is_old_news_for_him(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=1)
    gate.failing.add(4)
    fetcher.read_ahead(numbers(4))
    gate.wait_for(1)
    with fetcher.fetch(numbers(4)) as arriving:
        gate.gate.release(1)
        gate.wait_for(2)
        gate.failing.clear()
        gate.gate.release(1)
        assert list(arriving) == [(4, b"4")]
    assert gate.begun == [(4, False), (4, True)]


def test_leaving_early_cancels_what_was_not_begun(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=1)
    with fetcher.fetch(numbers(1, 2, 3)):
        gate.wait_for(1)
    gate.gate.release(2)
    with fetcher.fetch(numbers(9)) as arriving:
        assert list(arriving) == [(9, b"9")]
    assert [block for block, _ in gate.begun] == [1, 9]


def test_ctrl_c_interrupts_waiting_for_a_block_that_does_not_come(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), fetcher.fetch(numbers(1)) as arriving:
            list(arriving)
    finally:
        signal.signal(signal.SIGINT, before)
    timer.join()


def test_many_callers_get_everything_and_no_block_is_loaded_twice_at_once() -> None:
    under_way: Counter[int] = Counter()
    lock = threading.Lock()
    overlaps: list[int] = []

    def load(block: int, urgent: bool) -> bytes:
        with lock:
            under_way[block] += 1
            overlaps.append(under_way[block])
        time.sleep(0.0002)
        with lock:
            under_way[block] -= 1
        return b"%d" % block

    fetcher = Fetcher(load, connections=8)
    got: list[bool] = []

    def call(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            wanted = np.unique(rng.integers(0, 30, 6))
            if rng.random() < 0.3:
                fetcher.read_ahead(rng.permutation(30))
            with fetcher.fetch(wanted) as arriving:
                got.append(dict(arriving) == {int(b): b"%d" % b for b in wanted})

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert got == [True] * 300
    assert set(overlaps) == {1}


def test_idle_threads_end_and_let_the_fetcher_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.fetcher._IDLE_SECONDS", 0.05)
    fetcher = Fetcher(lambda block, urgent: b"", connections=4)
    with fetcher.fetch(np.arange(20)) as arriving:
        list(arriving)
    threads = list(fetcher._threads)
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    with fetcher.fetch(np.arange(20)) as arriving:
        assert len(list(arriving)) == 20


def test_closing_tells_whoever_waits(gate: Gate) -> None:
    fetcher = Fetcher(gate.load, connections=1)
    threading.Timer(0.1, fetcher.close).start()
    with pytest.raises(StorageError, match="process is ending"), fetcher.fetch(numbers(1)) as got:
        list(got)
    with pytest.raises(StorageError, match="process is ending"), fetcher.fetch(numbers(1)) as got:
        list(got)


def test_a_fetch_that_hangs_does_not_keep_the_process_alive() -> None:
    program = (
        "import time, numpy as np; from pipeline.storage.fetcher import Fetcher\n"
        "fetcher = Fetcher(lambda block, urgent: time.sleep(1000), connections=4)\n"
        "fetcher.read_ahead(np.arange(10)); time.sleep(0.1); print('end')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
