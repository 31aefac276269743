"""Runs the cells of a comparison, each in a process of its own, some side by side.

A process per run keeps runs apart: one that fails or runs out of memory takes no other with it, and
what it printed is in its own log.txt. The folder of a run says whether it is done, so running the same
comparison again continues it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any, Protocol

from pipeline import Corpus
from pipeline.cores import usable_cores
from trainer.compare.grid import Cell
from trainer.compare.tail import MetricsTail, end_of_log
from trainer.results.results import METRICS_FILE, RESULT_FILE
from trainer.run.config import TrainConfig
from trainer.run.folder_lock import FolderLock
from trainer.run.interrupt import Interrupt

LOG_FILE = "log.txt"
_POLL_SECONDS = 0.2


class State(Enum):
    """Where a run of the comparison stands."""

    WAITING = "waiting"
    ELSEWHERE = "in another process"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "done before"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A cell with everything that its process needs."""

    cell: Cell
    config: TrainConfig
    corpus: str
    version: int
    """Of the corpus: all runs of a comparison see the same one, whatever is added while they run."""
    folder: Path

    def command(self) -> list[str]:
        """The command that trains this cell; settings that have their default are left out."""
        options = flags_between(TrainConfig(), self.config)
        module = [sys.executable, "-m", "trainer.train_command"]
        corpus = [self.corpus, "--version", str(self.version)]
        return [*module, *corpus, "--out", str(self.folder), *options]


class CellRun:
    """A job on its way: its process, its state, and what its metrics say so far."""

    def __init__(self, job: Job, *, done: bool) -> None:
        self.job = job
        self.state = State.SKIPPED if done else State.WAITING
        self.exit_code: int | None = None
        self.metrics = MetricsTail(job.folder / METRICS_FILE)
        self.metrics.read()
        self.first_step = self.metrics.step
        """Step from which an earlier, unfinished run of the cell continues, or a little behind it."""
        self.started = self.ended = 0.0
        self.gpu: str | None = None
        """The GPU that its process sees, as CUDA_VISIBLE_DEVICES has it; None where there is none."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def is_taken(self) -> bool:
        """Whether a process trains it that is not ours, such as one whose comparison was killed."""
        taken = FolderLock(self.job.folder).is_taken()
        if taken:
            self.metrics.read()
        return taken

    @property
    def seconds(self) -> float:
        """How long its process has been running, or ran."""
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0

    def start(self, environment: dict[str, str], gpu: str | None) -> None:
        """Start the process on one GPU; its output goes to the end of log.txt."""
        self.gpu = gpu
        if gpu is not None:
            environment = {**environment, "CUDA_VISIBLE_DEVICES": gpu}
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self._log = (self.job.folder / LOG_FILE).open("ab")
        self._process = subprocess.Popen(
            self.job.command(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self.started, self.state = time.monotonic(), State.RUNNING

    def poll(self, *, stopping: bool) -> None:
        """Read new metrics and notice the end of the process."""
        assert self._process is not None, "only a run that was started is polled"
        self.metrics.read()
        self.exit_code = self._process.poll()
        if self.exit_code is None:
            return
        self.metrics.read()
        self._close()
        if (self.job.folder / RESULT_FILE).exists():
            self.state = State.DONE  # even if a signal met the process on its way out
        elif stopping:
            self.state = State.STOPPED
        else:
            self.state = State.ELSEWHERE if self.is_taken() else State.FAILED

    def ask_to_stop(self) -> None:
        """Ask the process to save and stop.

        By SIGTERM: a Ctrl-C on a terminal reaches every process of the group by itself, and a second
        SIGINT would make a run die before it has saved.
        """
        assert self._process is not None, "only a run that was started is stopped"
        self._process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self._close()
            self.state = State.STOPPED

    def failure(self) -> str:
        """What to tell about a run that failed: its exit code and the end of its log."""
        log = self.job.folder / LOG_FILE
        return f"{self.job.cell.name} failed (exit code {self.exit_code}); {log} ends:\n" + (
            end_of_log(log)
        )

    def _close(self) -> None:
        self.ended = time.monotonic()
        if self._log is not None:
            self._log.close()


class Display(Protocol):
    """Shows a person how far the comparison is."""

    def changed(self, run: CellRun) -> None:
        """`run` has another state."""
        ...

    def refresh(self, runs: Sequence[CellRun]) -> None:
        """Some time has passed."""
        ...

    def stopping(self) -> None:
        """A request to stop was passed on; runs are saving."""
        ...


def prepare(job: Job, corpus: Corpus) -> CellRun:
    """Look into the job's folder: the run is done, can continue, or is new.

    Raises `RunFolderError` when the folder holds a run of other settings, `MixtureError` for weights to
    replay that cannot be read or are of another view, `TargetError` for a target that cannot steer.
    """
    from trainer.mixers.schedule import read_schedule
    from trainer.run.distributed import choose_device
    from trainer.run.resolve import chosen_settings, resolve
    from trainer.run.run_folder import RunFolder
    from trainer.targets import check_steers, steering_target

    folder = RunFolder(job.folder)
    config = resolve(job.config, corpus, choose_device(job.config.device))
    folder.check(config, corpus)
    done = folder.result() is not None
    if config.target is not None and chosen_settings(config).needs_target and not done:
        check_steers(steering_target(corpus, config.target))
    if config.weights_file is not None and not done:
        read_schedule(Path(config.weights_file), corpus.domains(k=config.k))
    return CellRun(job, done=done)


def run_cells(runs: Sequence[CellRun], *, parallel: int, display: Display) -> int:
    """Run what is waiting, `parallel` at a time; the signal that stopped the comparison, 0 for none.

    Of several GPUs each run has one, the one with the fewest runs. After Ctrl-C or SIGTERM nothing new is
    started and what runs is asked to save and stop; a second Ctrl-C ends it at once (and raises
    KeyboardInterrupt). A failed run stops no other. One that another process trains is waited for.
    """
    environment, gpus = _environment(parallel), _gpus()
    waiting = [run for run in runs if run.state is State.WAITING]
    running: list[CellRun] = []
    stopping = False
    with Interrupt() as interrupt:
        try:
            while running or (waiting and not stopping):
                if interrupt.requested and not stopping:
                    stopping = True
                    display.stopping()
                    for run in running:
                        run.ask_to_stop()
                while len(running) < parallel and not stopping:
                    free = _next(waiting, display)
                    if free is None:
                        break
                    on_gpu = Counter(run.gpu for run in running)
                    free.start(environment, min(gpus, key=lambda gpu: on_gpu[gpu], default=None))
                    running.append(free)
                    display.changed(free)
                time.sleep(_POLL_SECONDS)
                for run in running:
                    run.poll(stopping=stopping)
                    if run.state is not State.RUNNING:
                        display.changed(run)
                waiting += [run for run in running if run.state is State.ELSEWHERE]
                running = [run for run in running if run.state is State.RUNNING]
                display.refresh(runs)
        finally:
            for run in running:
                run.kill()
    return interrupt.signal_number or 0 if stopping else 0


def _next(waiting: list[CellRun], display: Display) -> CellRun | None:
    """Take the first of those that no other process trains; None where there is none."""
    for number, run in enumerate(waiting):
        if not run.is_taken():
            return waiting.pop(number)
        if run.state is State.WAITING:
            run.state = State.ELSEWHERE
            display.changed(run)
    return None


def flags_between(defaults: Any, chosen: Any, prefix: str = "") -> list[str]:
    """Flags that turn one settings object into another of its class: `--steps 5 --health.most-passes 4`."""
    flags = []
    for setting in fields(chosen):
        default, value = getattr(defaults, setting.name), getattr(chosen, setting.name)
        flag = f"{prefix}{setting.name.replace('_', '-')}"
        if is_dataclass(value):
            flags += flags_between(default, value, f"{flag}.")
        elif value != default:
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            flags += [f"--{flag}", text]
    return flags


def _gpus() -> list[str]:
    """The GPUs that runs may use, by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible[:count] if visible != [""] else [str(gpu) for gpu in range(count)]


def _environment(parallel: int) -> dict[str, str]:
    """Runs side by side share the cores, or each would start a thread per core."""
    environment = dict(os.environ)
    if parallel > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // parallel)))
    return environment
