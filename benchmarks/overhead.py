"""What alignment costs: the same training with and without it, in one run.

    python -m benchmarks.overhead --results overhead.jsonl     # one GPU, minutes; goes on where it stopped
    python -m benchmarks.overhead --size tiny --device cpu     # whether everything runs

Blocks of steps with one measurement in them take turns with blocks without. What the measurement cost is
the difference of neighboring blocks, medians over the rounds:

    extra = seconds of a block with - seconds of the block without
    overhead = extra / (steps between measurements * seconds of a step)

Inside a block nothing is waited for that training does not wait for. Text is synthetic: time does not depend
on it, and how well scores agree with a reference (`agreement`) only ranks settings against each other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.kept_lines import KeptLines
from benchmarks.synthetic_corpus import SyntheticText, synthetic_corpus
from benchmarks.table import machine_line, table
from pipeline import Corpus, Mixture, MixtureStream
from trainer import Steering, SteeringConfig
from trainer.run.config import TrainConfig
from trainer.run.distributed import Ranks, choose_device
from trainer.run.learner import Learner
from trainer.run.resolve import resolve
from trainer.run.run_folder import device_name

MISSING = "–"  # noqa: RUF001 - a dash in a table
INTERVALS = (25, 100)
"""Steps between measurements that overheads are given for."""
ENDLESS = 1_000_000
"""Steps of a run that this benchmark never comes to the end of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How large everything is."""

    preset: str
    batch_size: int
    text: SyntheticText
    ks: tuple[int, int]
    block_steps: int
    rounds: int
    warm_up_steps: int


SIZES = {
    "full": Size(
        preset="110m",
        batch_size=32,
        text=SyntheticText(
            groups=64,
            leaves_per_group=64,
            samples_per_leaf=8,
            tokens_per_sample=1024,
            vocab_size=32_768,
        ),
        ks=(64, 4096),
        block_steps=6,
        rounds=5,
        warm_up_steps=100,
    ),
    "tiny": Size(
        preset="1m",
        batch_size=4,
        text=SyntheticText(
            groups=8,
            leaves_per_group=8,
            samples_per_leaf=4,
            tokens_per_sample=64,
            vocab_size=512,
        ),
        ks=(8, 64),
        block_steps=2,
        rounds=2,
        warm_up_steps=20,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to measure."""

    name: str
    fine: bool = False
    """Over the finer of the two views."""
    mixer: str = "dga"
    options: dict[str, Any] = field(default_factory=dict)
    """Of `SteeringConfig`, beside target, mixer and k."""


def settings(size: Size) -> list[Setting]:
    """What is compared: as it comes, and what makes it cheaper."""
    k, part = size.ks[0], size.text.tokens_per_sample // 4
    short = {"measured_tokens": part}
    half = {"shrinkage": "tree", "measured_domains": k // 2}
    return [
        Setting(name="difference, 4 samples"),
        Setting(
            name="difference, 1 sample, 32 of the target",
            options={"sequences_per_domain": 1, "target_batch": 32},
        ),
        Setting(name=f"difference, 4 samples, {part} tokens each", options=short),
        Setting(
            name=f"difference, 2 samples, {part} tokens each",
            options={**short, "sequences_per_domain": 2},
        ),
        Setting(
            name="difference over the tree, 1 sample of every other domain, 32 of the target",
            options={**half, "sequences_per_domain": 1, "target_batch": 32},
        ),
        Setting(name="probe", options={"estimator": "probe"}),
        Setting(
            name=f"probe, {part} tokens of the target's",
            options={"estimator": "probe", **short},
        ),
        Setting(name="distributions, 32 samples", fine=True, mixer="dga-distributions"),
        Setting(
            name=f"distributions, 32 samples, {part} tokens each",
            fine=True,
            mixer="dga-distributions",
            options=short,
        ),
        Setting(
            name=f"difference over the tree, 4 samples of {k} domains, {part} tokens each",
            fine=True,
            options={**short, "shrinkage": "tree", "measured_domains": k},
        ),
        Setting(
            name=f"probe over the tree, {part} tokens of the target's",
            fine=True,
            options={"estimator": "probe", **short},
        ),
        Setting(name="a backward pass per domain, 4 samples", options={"estimator": "exact"}),
    ]


class Bench:
    """One model in training, measured in one way after the other."""

    def __init__(self, corpus: Corpus, size: Size, device: torch.device) -> None:
        config = TrainConfig(
            target=corpus.target_names[0],
            preset=size.preset,  # type: ignore[arg-type]
            steps=ENDLESS,
            batch_size=size.batch_size,
            learning_rate=6e-4,
            warmup_steps=size.warm_up_steps,
        )
        self.corpus, self.size, self.device = corpus, size, device
        self.config = resolve(config, corpus, device)
        self.learner = Learner(self.config, corpus, ranks=Ranks(), device=device)
        self.step = 0
        views = [corpus.domains(k=min(k, corpus.num_leaves)) for k in size.ks]
        self.plain = [
            MixtureStream(corpus, Mixture.natural(view), batch_size=size.batch_size)
            for view in views
        ]
        self.train(self.plain[0], size.warm_up_steps)
        self._reference = self.scores(
            Setting(name="", options={"sequences_per_domain": 16, "target_batch": 256}), seed=1
        )

    def train(self, stream: MixtureStream, steps: int) -> None:
        """Train without any steering."""
        for batch in islice(stream, steps):
            self.learner.step(self.step, batch)
            self.step += 1

    def steer(self, steering: Steering, steps: int) -> None:
        """Train with it, as `trainer.run.loop` does."""
        for _ in range(steps):
            steering.after_step(steering.stream.step)
            batch = next(steering.stream)
            self.learner.step(self.step, batch, steering)
            steering.observe(self.learner.sample_losses, batch.domains)
            self.step += 1

    def steering(self, setting: Setting, *, seed: int = 0) -> Steering:
        """Measures once in every block of steps."""
        steps = self.size.block_steps
        options = {"measured_tokens": 0, **setting.options}  # whole samples unless it says how much
        if options.get("estimator") == "probe":
            options["probe_every"] = steps
        return Steering(
            self.corpus,
            SteeringConfig(
                num_steps=ENDLESS,
                batch_size=self.size.batch_size,
                target=self.config.target,
                seed=seed,
                mixer=f"{setting.mixer}+update_every={steps}",
                k=self.plain[setting.fine].view.k,
                **options,
            ),
            self.learner.loss,
        )

    def measure(self, setting: Setting) -> dict[str, Any]:
        """Seconds and bytes of blocks with and without, and of what `setting` measures."""
        steps, stream = self.size.block_steps, self.plain[setting.fine]
        steering = self.steering(setting)
        started = time.perf_counter()
        self.steer(steering, 2 * steps)  # compiles; nothing is due before the first step
        compile_seconds = time.perf_counter() - started
        without, with_it = [], []
        for _ in range(self.size.rounds):
            without.append(self.timed(lambda: self.train(stream, steps)))
            with_it.append(self.timed(lambda: self.steer(steering, steps)))
        extra = [b.seconds - a.seconds for a, b in zip(without, with_it, strict=True)]
        step_seconds = median(block.seconds for block in without) / steps
        return {
            "setting": setting.name,
            "k": stream.view.k,
            "step_ms": 1e3 * step_seconds,
            "extra_ms": 1e3 * median(extra),
            "extra_ms_lowest": 1e3 * min(extra),
            "extra_ms_highest": 1e3 * max(extra),
            "extra_steps": median(extra) / step_seconds,
            **{f"overhead_{every}": median(extra) / (every * step_seconds) for every in INTERVALS},
            "peak_gb_without": max(block.peak_bytes for block in without) / 1e9,
            "peak_gb_with": max(block.peak_bytes for block in with_it) / 1e9,
            "first_seconds": compile_seconds,
        }

    def timed(self, block: Callable[[], None]) -> Block:
        """Run a block of steps from an idle device to an idle device."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        block()
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        return Block(seconds, torch.cuda.max_memory_allocated() if on_gpu else 0)

    def agreement(self, setting: Setting) -> float | None:
        """Correlation over domains of one measurement's scores with those of many samples.

        Mean of three measurements. None where other things than the coarser view's domains are scored, or
        where training has to go on for it.
        """
        if setting.fine or setting.options.get("estimator") == "probe":
            return None
        found = [self.scores(setting, seed=seed) for seed in (2, 3, 4)]
        return float(np.mean([np.corrcoef(self._reference, values)[0, 1] for values in found]))

    def scores(self, setting: Setting, *, seed: int) -> NDArray[np.float64]:
        """One measurement at the present weights: (k,)."""
        renewal = self.steering(setting, seed=seed).after_step(self.size.block_steps)
        assert renewal is not None
        assert renewal.scores is not None
        return renewal.scores.values

    def profile(self, setting: Setting) -> str:
        """The ten kernels or operators that a block with a measurement spends most on."""
        from torch.profiler import ProfilerActivity, profile

        on_gpu = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        steering = self.steering(setting)
        self.steer(steering, 2 * self.size.block_steps)
        with profile(activities=activities) as profiled:
            self.steer(steering, self.size.block_steps)
        order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        return profiled.key_averages().table(sort_by=order, row_limit=10)


@dataclass(frozen=True, slots=True)
class Block:
    """What a block of steps took."""

    seconds: float
    peak_bytes: int
    """0 where the device does not count."""


def report(lines: list[dict[str, Any]]) -> str:
    """The table."""
    header = [
        "k",
        "measured by",
        "extra, ms (lowest to highest)",
        "in steps",
        *(f"every {every} steps" for every in INTERVALS),
        "peak memory, GB",
        "agreement",
    ]
    return table(header, [_row(line) for line in lines])


def _row(line: dict[str, Any]) -> list[str]:
    low, high, agreement = line["extra_ms_lowest"], line["extra_ms_highest"], line["agreement"]
    without, with_it = line["peak_gb_without"], line["peak_gb_with"]
    memory = f"{without:.1f} → {with_it:.1f} ({with_it / without - 1:+.1%})" if without else MISSING
    return [
        f"{line['k']:,}",
        line["setting"],
        f"{line['extra_ms']:.0f} ({low:.0f} to {high:.0f})",
        f"{line['extra_steps']:.2f}",
        *(f"{line[f'overhead_{every}']:.1%}" for every in INTERVALS),
        memory,
        MISSING if agreement is None else f"{agreement:.3f}",
    ]


def main() -> None:
    """Print the table, and everything behind it as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--only", default="", help="settings whose name has this in it")
    parser.add_argument(
        "--results", type=Path, help="keep results here; what is there is not repeated"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes, too")
    options = parser.parse_args()
    size, device = SIZES[options.size], choose_device(options.device)
    found = KeptLines(options.results, {"size": options.size, "device": device_name(device)})
    began = time.perf_counter()
    chosen = [each for each in settings(size) if options.only in each.name]
    done = {line["setting"] for line in found.lines}
    waiting = [each for each in chosen if each.name not in done]
    with tempfile.TemporaryDirectory() as folder:
        if waiting:
            bench = Bench(synthetic_corpus(Path(folder) / "corpus", size.text), size, device)
            # Before anything is timed, so that all settings see the same weights.
            agreement = {each.name: bench.agreement(each) for each in waiting}
        for setting in waiting:
            found.add({**bench.measure(setting), "agreement": agreement[setting.name]})
            print(
                f"{time.perf_counter() - began:5.0f} s  {' | '.join(_row(found.lines[-1]))}",
                flush=True,
            )
            if options.profile:
                print(bench.profile(setting), flush=True)
    steps = [line["step_ms"] for line in found.lines]
    print(f"\n{device_name(device)}; {machine_line()}")
    print(
        f"{size.preset}, {size.batch_size} x {size.text.tokens_per_sample} tokens a step, ", end=""
    )
    print(f"{median(steps):.1f} ms without measuring.\n\n{report(found.lines)}")
    print(json.dumps(found.lines))


if __name__ == "__main__":
    main()
