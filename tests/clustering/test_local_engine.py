from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clustering.engines.engine import Device
from clustering.engines.local_engine import LocalEngine
from clustering.errors import BuildError
from clustering.work.work_store import LocalWork, WorkStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Square:
    """Publishes the square of each number; one of them may be bad, or deadly, and all of them slow."""

    store: WorkStore
    bad: int = -1
    deadly: int = -1
    seconds: float = 0.0
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        time.sleep(self.seconds)
        if unit == self.bad:
            raise BuildError(f"{unit} is bad")
        if unit == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self.store.publish(f"squares/{unit:03}", f"{unit * unit} {os.getpid()}".encode())
        return 1


def assert_no_worker_outlives(
    process: subprocess.Popen[bytes], store: LocalWork, how: signal.Signals, *, seconds: float
) -> None:
    """End a coordinator of `Square` after its fourth unit; its workers are gone within `seconds`."""
    while len(store.names("squares/")) < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(seconds)
    workers = {int(store.content(name).split()[1]) for name in store.names("squares/")}
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_unit_is_done_once_and_counted(tmp_path: Path, workers: int) -> None:
    store = LocalWork(tmp_path)
    counted: list[int] = []
    LocalEngine(workers).run(Square(store=store), range(0, 20, 2), counted.append)
    assert sum(counted) == 10
    results = [store.content(name).split() for name in store.names("squares/")]
    assert [int(square) for square, _ in results] == [n * n for n in range(0, 20, 2)]
    in_this_process = {int(process) == os.getpid() for _, process in results}
    assert in_this_process == {workers == 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_unit_reaches_the_caller_and_names_it(tmp_path: Path, workers: int) -> None:
    store = LocalWork(tmp_path)
    with pytest.raises(BuildError, match="3 is bad") as caught:
        LocalEngine(workers).run(Square(store=store, bad=3), range(8), lambda count: None)
    assert any("in unit 3 of Square" in note for note in caught.value.__notes__)
    assert "squares/000" in store.names("squares/")


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    task = Square(store=LocalWork(tmp_path), deadly=1)
    with pytest.raises(BuildError, match=r"a worker process died.*--workers"):
        LocalEngine(2).run(task, range(4), lambda count: None)


ENDLESS = """
import sys
from pathlib import Path
from clustering.engines.local_engine import LocalEngine
from clustering.work.work_store import LocalWork
from tests.clustering.test_local_engine import Square

if __name__ == "__main__":
    task = Square(store=LocalWork(Path(sys.argv[1])), seconds=0.05)
    LocalEngine(2).run(task, range(100_000), lambda count: None)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS, "utf-8")
    store = LocalWork(tmp_path / "work")
    process = subprocess.Popen(
        [sys.executable, str(script), str(store.folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert_no_worker_outlives(process, store, how, seconds=20)


class Stepped(Square):
    """Tells of every unit in two steps."""

    def steps(self, unit: int) -> Iterator[int]:
        yield 3
        yield self(unit)


def test_the_steps_of_a_unit_are_seen_as_they_come(tmp_path: Path) -> None:
    counted: list[int] = []
    store = LocalWork(tmp_path)
    LocalEngine().run(Stepped(store=store), [4, 5], counted.append)
    assert counted == [3, 1, 3, 1]
    with pytest.raises(BuildError, match="6 is bad") as caught:
        LocalEngine().run(Stepped(store=store, bad=6), [6], counted.append)
    assert caught.value.__notes__ == ["in unit 6 of Stepped"]


def test_a_worker_without_a_model_starts_without_torch() -> None:
    tasks = ["documents.reading", "shards.tokenization", "shards.leaf_order", "shards.shard_units"]
    modules = ", ".join(f"clustering.{task}" for task in [*tasks, "cards.describe_task"])
    code = f"import sys, {modules}; print({{'torch', 'tyro'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
