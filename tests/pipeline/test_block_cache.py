from __future__ import annotations

import itertools
import os
import signal
import tempfile
import time
from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline import CorpusError
from tests.pipeline.noise import (
    Noise,
    hammer,
    let_the_disk_fill_up,
    store_and_die,
    store_without_end,
    take_over_and_die,
)
from tests.processes import stream_processes

NOISE = Noise(12, 20_000)
EVERYTHING = np.arange(NOISE.num_blocks)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return stream_processes()


class CacheMachine(RuleBasedStateMachine):
    """Two caches on one folder, as two processes have them, against a list of blocks in order of use."""

    @initialize(num_slots=st.integers(8, 10))
    def begin(self, num_slots: int) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        self.held: list[int] = []
        self.damaged: set[int] = set()
        self.open(num_slots)

    def open(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.caches = [NOISE.open(Path(self.scratch.name), num_slots) for _ in range(2)]

    @rule(which=st.integers(0, 1), block=st.integers(0, 11))
    def store(self, which: int, block: int) -> None:
        cache = self.caches[which]
        assert cache.holds(block) == (block in self.held)
        if block not in self.held:
            assert cache.claim(block)
            assert not self.caches[1 - which].claim(block)
            cache.store(block, NOISE.contents[block])
            cache.release(block)
            self.held.append(block)
            if len(self.held) > self.num_slots:
                self.damaged.discard(self.held.pop(0))

    @rule(which=st.integers(0, 1), blocks=st.lists(st.integers(0, 11), max_size=6))
    def read(self, which: int, blocks: list[int]) -> None:
        cache = self.caches[which]
        asked = np.array(blocks, dtype=np.int64)
        contents = NOISE.read(cache, asked)
        self.held = [held for held in self.held if held not in self.damaged or held not in blocks]
        self.damaged -= set(blocks)
        assert contents == [
            NOISE.contents[block] if block in self.held else None for block in blocks
        ]
        for block in blocks:
            if block in self.held:
                cache.touch(cache.look_up(np.array([block])).slots)
                self.held.append(self.held.pop(self.held.index(block)))

    @rule(flips=st.sets(st.integers(0, 11)), num_slots=st.integers(8, 12))
    def restart(self, flips: set[int], num_slots: int) -> None:
        """Both processes end, bits flip on the disk, and the next ones have more or less space."""
        slot_of = dict(enumerate(self.caches[0].look_up(EVERYTHING).slots))
        folder = self.caches[0].folder
        self.caches.clear()
        with (folder / "data").open("r+b") as file:
            for block in flips & set(self.held):
                file.seek(slot_of[block] * 20_480 + 1000 * block)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1]))
        self.damaged ^= flips & set(self.held)  # flipped twice is right again
        self.held = [block for block in self.held if slot_of[block] < num_slots]
        self.damaged &= set(self.held)
        self.open(num_slots)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "caches"):
            size = (self.caches[0].folder / "data").stat().st_size
            assert size == self.num_slots * 20_480

    def teardown(self) -> None:
        if hasattr(self, "caches"):
            self.caches.clear()
            self.scratch.cleanup()


TestAgainstAModel = CacheMachine.TestCase
TestAgainstAModel.settings = settings(max_examples=40, stateful_step_count=30)


@pytest.mark.parametrize("num_slots", [8, 40])
def test_processes_that_share_a_cache_read_right_bytes_and_fetch_nothing_twice_that_fits(
    tmp_path: Path, processes: ForkServerContext, num_slots: int
) -> None:
    log = tmp_path / "log"
    workers = [
        processes.Process(target=hammer, args=(tmp_path, log, num_slots, seed, 400))
        for seed in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    fetched = Counter(log.read_text().split())
    assert len(fetched) == 40
    assert (max(fetched.values()) == 1) == (num_slots == 40)


def test_a_writer_that_is_killed_at_any_line_leaves_a_sound_cache(
    tmp_path: Path,
    processes: ForkServerContext,
) -> None:
    lines = 0
    while True:
        cache = NOISE.open(tmp_path, 8)
        for block in range(8):
            cache.store(block, NOISE.contents[block])
        del cache
        writer = processes.Process(target=store_and_die, args=(tmp_path, lines))
        writer.start()
        writer.join()
        cache = NOISE.open(tmp_path, 8)
        contents = NOISE.read(cache, EVERYTHING)
        assert all(content in (None, NOISE.contents[n]) for n, content in enumerate(contents))
        assert sum(content is not None for content in contents) >= 7
        assert cache.claim(11)
        cache.store(11, NOISE.contents[11])
        assert NOISE.read(cache, np.array([11])) == [NOISE.contents[11]]
        del cache
        if writer.exitcode == 0:
            break
        assert writer.exitcode == -signal.SIGKILL
        lines += 1
    assert lines > 20


def test_a_later_version_that_is_killed_at_a_line_of_its_opening_can_be_opened(
    tmp_path: Path,
    processes: ForkServerContext,
) -> None:
    for lines in itertools.count(0, 7):
        folder = tmp_path / str(lines)
        cache = NOISE.open(folder, 12)
        for block in EVERYTHING:
            cache.store(int(block), NOISE.contents[block])
        del cache
        killed = processes.Process(target=take_over_and_die, args=(folder, lines))
        killed.start()
        killed.join()
        for cache in (NOISE.open_later(folder), NOISE.open(folder, 12)):
            contents = NOISE.read(cache, EVERYTHING)
            assert all(content in (None, NOISE.contents[n]) for n, content in enumerate(contents))
        if killed.exitcode == 0:
            break
        assert killed.exitcode == -signal.SIGKILL
    assert lines > 100


def test_writers_killed_at_random_moments_leave_a_sound_cache(
    tmp_path: Path,
    processes: ForkServerContext,
) -> None:
    noise = Noise(12, 1 << 20)
    for trial in range(20):
        ready = processes.Event()
        writer = processes.Process(target=store_without_end, args=(tmp_path, 8, ready))
        writer.start()
        assert ready.wait(30)
        time.sleep(0.0005 * trial)
        writer.kill()
        writer.join()
        cache = noise.open(tmp_path, 8)
        contents = noise.read(cache, EVERYTHING)
        assert all(content in (None, noise.contents[n]) for n, content in enumerate(contents))
        assert all(cache.claim(block) for block in range(12))


def test_a_cache_survives_restarts(tmp_path: Path) -> None:
    cache = NOISE.open(tmp_path, 12)
    for block in EVERYTHING:
        cache.store(int(block), NOISE.contents[block])
    del cache
    assert NOISE.read(NOISE.open(tmp_path, 12), EVERYTHING) == NOISE.contents


def test_a_process_joins_a_cache_in_use_at_the_size_it_has(tmp_path: Path) -> None:
    first = NOISE.open(tmp_path, 8)
    second = NOISE.open(tmp_path, 12)
    assert second.num_slots == first.num_slots == 8
    del first, second
    assert NOISE.open(tmp_path, 12).num_slots == 12


@pytest.mark.parametrize("damage", ["header", "length", "empty", "version"])
def test_a_table_that_is_torn_or_of_another_version_is_discarded(
    tmp_path: Path, damage: str
) -> None:
    cache = NOISE.open(tmp_path, 8)
    cache.store(3, NOISE.contents[3])
    table = cache.folder / "table"
    del cache
    content = bytearray(table.read_bytes())
    if damage == "header":
        content[70] ^= 1
    elif damage == "version":
        content[8] += 1
    table.write_bytes({"length": content[:-1], "empty": b""}.get(damage, content))
    cache = NOISE.open(tmp_path, 8)
    assert not cache.look_up(EVERYTHING).there.any()
    cache.store(3, NOISE.contents[3])
    assert NOISE.read(cache, np.array([3])) == [NOISE.contents[3]]


def test_a_table_full_of_nonsense_never_yields_a_wrong_byte(tmp_path: Path) -> None:
    """As a power cut may leave it: pages of the table and of the data that do not belong together."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        cache = NOISE.open(tmp_path, 8)
        for block in rng.permutation(12):
            cache.store(int(block), NOISE.contents[block])
        table = cache._table
        table.slot_of_block[:] = rng.choice([0, 3, 7, 8, 2**32 - 1], 12)
        table.block_of_slot[rng.integers(8, size=4)] = rng.integers(0, 13, 4)
        table.generation[rng.integers(8)] = -1
        table.last_used[rng.integers(8)] = rng.choice([0, -1, 2**63 - 1])
        del cache, table
        cache = NOISE.open(tmp_path, 8)
        contents = NOISE.read(cache, EVERYTHING)
        assert all(content in (None, NOISE.contents[n]) for n, content in enumerate(contents))


def test_a_process_of_another_version_cannot_join_a_cache_in_use(tmp_path: Path) -> None:
    cache = NOISE.open(tmp_path, 8)
    with (cache.folder / "table").open("r+b") as file:
        file.seek(8)
        file.write(b"\x09")
    with pytest.raises(CorpusError, match="in use by another version"):
        NOISE.open(tmp_path, 8)


def test_a_cache_that_is_too_small_says_how_large_it_must_be(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="give the cache 163,840 bytes or more"):
        NOISE.open(tmp_path, 7)
    assert Noise(3, 20_000).open(tmp_path, 3).num_slots == 3


def test_a_folder_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match=r"file/\w+-20000 cannot be used: Not a directory"):
        NOISE.open(tmp_path / "file", 8)


def test_a_full_disk_is_an_error_and_what_was_stored_stays(
    tmp_path: Path,
    processes: ForkServerContext,
) -> None:
    results = processes.SimpleQueue()
    limit = 5 * 20_480 + 10_000
    process = processes.Process(target=let_the_disk_fill_up, args=(tmp_path, limit, results))
    process.start()
    process.join()
    assert process.exitcode == 0
    name, message = results.get()
    assert name == "StorageError"
    assert "cannot be used: File too large. Free space on that disk" in message
    assert 0 < len(results.get()) <= 5


def test_a_large_cache_still_evicts_what_was_not_used_for_long(tmp_path: Path) -> None:
    noise = Noise(1000, 64)
    cache = noise.open(tmp_path, 512)
    for block in range(512):
        cache.store(block, noise.contents[block])
    hot = np.arange(0, 512, 4)
    for block in range(512, 812):
        cache.touch(cache.find(hot).slots)
        cache.store(block, noise.contents[block])
    assert cache.look_up(hot).there.all()
    assert cache.look_up(np.arange(512, 812)).there.all()
    assert cache.look_up(np.arange(1000)).there.sum() == 512


def test_blocks_used_before_the_clock_was_set_back_make_room_for_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Noise(40, 64)
    cache = noise.open(tmp_path, 16)
    with monkeypatch.context() as patch:
        now = time.time_ns()
        patch.setattr(time, "time_ns", lambda: now + 10**18)
        for block in range(16):
            cache.store(block, noise.contents[block])
    del cache
    cache = noise.open(tmp_path, 16)
    for block in range(20, 36):
        cache.store(block, noise.contents[block])
    assert cache.look_up(np.arange(20, 36)).there.all()
