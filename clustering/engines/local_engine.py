"""The units of a stage on this machine: in this process, or in a few beside it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from clustering.engines.engine import AHEAD, SteppedTask, UnitTask
from clustering.errors import BuildError
from pipeline.cores import usable_cores

_task: UnitTask | None = None


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Runs units in `workers` processes; with one, in this process.

    A task that needs a GPU gets one process per visible GPU, whatever `workers` says.
    """

    workers: int = 1

    def run(self, task: UnitTask, units: Sequence[int], advance: Callable[[int], None]) -> None:
        """See `Engine`."""
        workers = min(_num_gpus() if task.device == "cuda" else self.workers, len(units))
        if workers <= 1:
            for unit in units:
                _do_in_steps(task, unit, advance)
        else:
            _run_beside(task, units, workers, advance)


def _run_beside(
    task: UnitTask, units: Sequence[int], workers: int, advance: Callable[[int], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_begin,
        initargs=(task, numbers, _threads(workers), os.getpid()),
    )
    waiting = iter(units)
    running = set()
    try:
        for unit in waiting:
            running.add(pool.submit(_do, unit))
            if len(running) < AHEAD * workers:
                continue
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                advance(future.result())
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                advance(future.result())
    except BrokenProcessPool:
        raise BuildError(
            "a worker process died, most likely because the memory ran out. Finished units are kept: run the "
            "same command again, with fewer --workers."
        ) from None
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _begin(
    task: UnitTask, numbers: multiprocessing.SimpleQueue[int], threads: int, parent: int
) -> None:
    """Make a worker of this process: it leaves Ctrl-C to its parent and does not outlive it."""
    global _task
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torch reads it when it is loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    number = numbers.get()
    if task.device == "cuda":
        import torch

        torch.cuda.set_device(number)
    _task = task


def _do(unit: int) -> int:
    assert _task is not None, "the initializer of the pool sets the task"
    return _named(_task, unit)


def _named(task: UnitTask, unit: int) -> int:
    """Do a unit; its error says which one it was."""
    with _naming(task, unit):
        return task(unit)


def _do_in_steps(task: UnitTask, unit: int, advance: Callable[[int], None]) -> None:
    """The same in this process, where the steps of a unit can be seen."""
    with _naming(task, unit):
        for done in task.steps(unit) if isinstance(task, SteppedTask) else [task(unit)]:
            advance(done)


@contextmanager
def _naming(task: UnitTask, unit: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"in unit {unit} of {type(task).__name__}")
        raise


def _die_with(parent: int) -> None:
    """End this process when its parent has gone, however that ended."""
    import threading
    import time

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _threads(workers: int) -> int:
    """Threads for each of the workers, so that together they take the cores that there are."""
    return max(1, usable_cores() // workers)


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()
