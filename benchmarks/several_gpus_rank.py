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
from torch.profiler import DeviceType, ProfilerAction, profile

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


class Profile:
    """Writes what the GPU did and what this process called of it, in milliseconds a step, in some ranges."""

    def __init__(self, ranges: dict[str, tuple[int, int]], path: Path) -> None:
        """`ranges`: their first step and how many there are, by name; apart and in order."""
        self._ranges, self._path, self._found = ranges, path, dict[str, Any]()
        self._profiler = profile(schedule=self._action, on_trace_ready=self._write)

    def before_step(self) -> None:
        """Count; the steps that are looked at begin on an idle GPU and end on one."""
        step = self._profiler.step_num + 1
        near = (first - 1 <= step <= first + n for first, n in self._ranges.values())
        if torch.cuda.is_available() and any(near):
            torch.cuda.synchronize()
        self._profiler.step()

    def __enter__(self) -> Profile:
        self._profiler.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profiler.__exit__(*error)

    def _action(self, step: int) -> ProfilerAction:
        for first, steps in self._ranges.values():
            if step == first - 1:
                return ProfilerAction.WARMUP
            if first <= step < first + steps - 1:
                return ProfilerAction.RECORD
            if step == first + steps - 1:
                return ProfilerAction.RECORD_AND_SAVE
        return ProfilerAction.NONE

    def _write(self, found: profile) -> None:
        name = list(self._ranges)[len(self._found)]
        kernels, calls = dict[str, float](), dict[str, float]()
        for each in found.key_averages():
            if each.device_type == DeviceType.CUDA and not each.is_user_annotation:
                kernels[each.key] = each.self_device_time_total / 1e3 / self._ranges[name][1]
            elif each.device_type == DeviceType.CPU and each.key.startswith("cuda"):
                calls[each.key] = each.self_cpu_time_total / 1e3 / self._ranges[name][1]
        memory = torch.cuda.memory_stats() if torch.cuda.is_available() else {}
        self._found[name] = {
            "kernels": kernels,
            "calls": calls,
            "memory": {key: memory.get(key) for key in ("num_device_alloc", "num_alloc_retries")},
        }
        self._path.write_text(json.dumps(self._found), encoding="utf-8")


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
        if told["profiled"] and ranks.is_first:
            profiling = found = Profile(told["profiled"], out / "profile.json")
            before_step = found.before_step
        run.stream = NotedStream(  # type: ignore[assignment]
            run.stream, out / f"rank{ranks.rank}.jsonl", before_step
        )
        with profiling:
            run.to_the_end(interrupt)


def nothing() -> None:
    """Where nothing is profiled."""


if __name__ == "__main__":
    main()
