"""`kill -9` at random moments: the next start continues with exactly the next sample, and nothing is left."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

from pipeline import open_corpus
from tests.pipeline.remote_corpus import start_stream, upload, write_small_corpus
from tests.pipeline.trainee import note, train
from tests.processes import stream_processes
from tests.servers.store_server import StoreServer

NEVER_ENDING = 10**9


def trials(*, quick: int, slow: int) -> pytest.MarkDecorator:
    """How often to kill, as a rule and in `make test-slow`."""
    return pytest.mark.parametrize("trials", [quick, pytest.param(slow, marks=pytest.mark.slow)])


class Unbroken:
    """What a run that nobody kills notes, as far as it was asked for."""

    def __init__(self, folder: Path) -> None:
        self._stream = start_stream(open_corpus(folder))
        self._notes: list[str] = []

    def __getitem__(self, step: int) -> str:
        while len(self._notes) <= step:
            self._notes.append(note(next(self._stream)))
        return self._notes[step]


class Run:
    """One training run that is killed and started again."""

    def __init__(self, context: ForkServerContext, address: str, folder: Path, name: str) -> None:
        self._context = context
        self._address = address
        self.cache = folder / "cache"
        self._folder = folder / name
        self._folder.mkdir()
        self.processes: list[ForkServerProcess] = []
        self.workers: list[int] = []

    def start(
        self, *, workers: int = 0, num_steps: int = NEVER_ENDING
    ) -> tuple[ForkServerProcess, list[int]]:
        """Continue; returns, after the first batch, the process and the pids of its workers."""
        begun = self._context.SimpleQueue()
        args = (self._address, self.cache, self._folder, workers, begun, num_steps)
        process = self._context.Process(target=train, args=args)
        process.start()
        self.processes.append(process)
        wait([begun._reader, process.sentinel], timeout=60)
        assert not begun.empty(), "it ended before its first batch"
        begun_workers = begun.get()
        self.workers += begun_workers
        return process, begun_workers

    def check(self, unbroken: Unbroken) -> int:
        """Every batch was the right one, and after a kill came the next or, if unsaved, the same again.

        Returns how many there were.
        """
        notes = (self._folder / "log").read_text().splitlines(keepends=True)
        steps = [int(line.split()[0]) for line in notes]
        assert all(line == unbroken[step] for line, step in zip(notes, steps, strict=True))
        assert steps[0] == 0
        assert all(after - before in (0, 1) for before, after in pairwise(steps))
        return steps[-1] + 1


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_corpus(tmp_path_factory.mktemp("kill") / "corpus")


@pytest.fixture(scope="module")
def unbroken(corpus_folder: Path) -> Unbroken:
    return Unbroken(corpus_folder)


@pytest.fixture
def new_run(
    s3: StoreServer,
    corpus_folder: Path,
    new_prefix: str,
    tmp_path: Path,
) -> Iterator[Callable[[str], Run]]:
    address = s3.address(new_prefix)
    upload(corpus_folder, address)
    before = left_in_shared_memory()
    runs: list[Run] = []

    def new_run(name: str) -> Run:
        runs.append(Run(stream_processes(), address, tmp_path, name))
        return runs[-1]

    yield new_run
    for process in [process for run in runs for process in run.processes]:
        kill(process)
    deadline = time.monotonic() + 10
    workers = [pid for run in runs for pid in run.workers]
    while left := [*(left_in_shared_memory() - before), *filter(is_running, workers)]:
        assert time.monotonic() < deadline, f"left in /dev/shm, or running: {left}"
        time.sleep(0.1)


def left_in_shared_memory() -> set[Path]:
    """What no process has mapped, but for joblib's, the browser's and mosaicml's: other tests use theirs."""
    others = re.compile(r"sem\.loky|\.org\.chromium|\d{6}_")
    there = {path for path in Path("/dev/shm").iterdir() if not others.match(path.name)}
    for maps in Path("/proc").glob("[0-9]*/maps") if there else ():
        with suppress(OSError):  # it has ended
            text = maps.read_text()
            there = {path for path in there if str(path) not in text}
    return there


def is_running(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def kill(process: ForkServerProcess) -> None:
    process.kill()
    process.join()


@trials(quick=5, slow=40)
def test_killed_training_continues_with_the_next_sample(
    new_run: Callable[[str], Run], unbroken: Unbroken, chance: random.Random, trials: int
) -> None:
    run = new_run("run")
    for _ in range(trials):
        process, _ = run.start()
        time.sleep(chance.uniform(0, 0.2))
        kill(process)
    steps = run.check(unbroken)
    process, _ = run.start(num_steps=5)
    process.join()
    assert process.exitcode == 0
    assert run.check(unbroken) >= steps + 4


@trials(quick=2, slow=20)  # torch notices a dead worker after five seconds
def test_a_killed_worker_ends_training_with_an_error_and_it_continues_with_the_next_sample(
    new_run: Callable[[str], Run], unbroken: Unbroken, chance: random.Random, trials: int
) -> None:
    run = new_run("run")
    for _ in range(trials):
        process, workers = run.start(workers=2)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(chance.choice(workers), signal.SIGKILL)
        process.join(30)
        assert process.exitcode == 1
    steps = run.check(unbroken)
    process, _ = run.start(num_steps=5)
    process.join()
    assert run.check(unbroken) >= steps + 4


@trials(quick=5, slow=40)
def test_when_the_owner_of_the_cache_is_killed_others_go_on_and_it_can_come_back(
    new_run: Callable[[str], Run], unbroken: Unbroken, chance: random.Random, trials: int
) -> None:
    """Two processes take turns at being the one that has opened the cache first."""
    runs = [new_run("one"), new_run("other")]
    owner, _ = runs[0].start()
    other, _ = runs[1].start()
    for _ in range(trials):
        time.sleep(chance.uniform(0, 0.2))
        kill(owner)
        steps = runs[1].check(unbroken)
        while runs[1].check(unbroken) < steps + 3:
            assert other.is_alive()
            time.sleep(0.01)
        came_back, _ = runs[0].start()
        runs.reverse()
        owner, other = other, came_back
    kill(owner)
    kill(other)
    assert min(run.check(unbroken) for run in runs) > trials
