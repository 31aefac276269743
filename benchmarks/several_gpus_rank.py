"""One process of a run that `benchmarks.several_gpus` starts under torchrun: it notes what it draws.

Its notes are lines of step, digest of the mixture that holds, and positions of this rank's samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import DeviceType, profile, schedule

from pipeline import MixtureStream, open_corpus
from pipeline.samples.batch import Batch
from trainer.run.config import TrainConfig
from trainer.run.distributed import choose_device, joined_ranks
from trainer.run.interrupt import Interrupt
from trainer.run.loop import Run
from trainer.run.resolve import resolve
from trainer.run.run_folder import RunFolder


class NotedStream:
    """A stream that writes down every batch before it hands it on."""

    def __init__(self, stream: MixtureStream, notes: Path, before_step: Callable[[], None]) -> None:
        self._stream, self._before_step = stream, before_step
        self._notes = notes.open("a", buffering=1, encoding="utf-8")

    def __next__(self) -> Batch:
        self._before_step()
        batch = next(self._stream)
        digest = hashlib.sha256(self._stream.mixture.probabilities.tobytes()).hexdigest()[:16]
        self._notes.write(json.dumps([batch.step, digest, batch.positions.tolist()]) + "\n")
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Kernels:
    """Writes which kernels ran, for how many milliseconds a step, in `steps` steps from `first` on."""

    def __init__(self, first: int, steps: int, path: Path) -> None:
        self._before, self._steps, self._path = first - 1, steps, path
        self._profiler = profile(
            schedule=schedule(wait=first - 1, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._write,
        )

    def before_step(self) -> None:
        """Count; the steps that are looked at begin on an idle GPU and end on one."""
        self._before -= 1
        if self._before < 0:
            torch.cuda.synchronize()
        self._profiler.step()

    def __enter__(self) -> Kernels:
        self._profiler.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profiler.__exit__(*error)

    def _write(self, found: profile) -> None:
        of_kernels = {
            each.key: each.self_device_time_total / 1e3 / self._steps
            for each in found.key_averages()
            if each.device_type == DeviceType.CUDA and not each.is_user_annotation
        }
        self._path.write_text(json.dumps(of_kernels), encoding="utf-8")


def main() -> None:
    """Train as the JSON in the first argument says."""
    told = json.loads(sys.argv[1])
    out = Path(told["out"])
    corpus = open_corpus(told["corpus"], cache=Path(told["cache"]))
    device = choose_device(told["device"])
    config = resolve(TrainConfig(**told["config"]), corpus, device)
    folder = RunFolder(out)
    folder.check(config, corpus)
    with joined_ranks(device) as ranks, Interrupt() as interrupt:
        run = Run(corpus, config, folder, ranks=ranks, device=device, quiet=True)
        (out / f"rank{ranks.rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
        profiling: AbstractContextManager[Any] = nullcontext()
        before_step: Callable[[], None] = nothing
        if told["profiled"] and ranks.is_first and torch.cuda.is_available():
            profiling = kernels = Kernels(*told["profiled"], out / "kernels.json")
            before_step = kernels.before_step
        run.stream = NotedStream(  # type: ignore[assignment]
            run.stream, out / f"rank{ranks.rank}.jsonl", before_step
        )
        with profiling:
            run.to_the_end(interrupt)


def nothing() -> None:
    """Where nothing is profiled."""


if __name__ == "__main__":
    main()
