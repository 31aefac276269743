"""Training on one GPU and on several of a host: speed, what DGA costs, and whether all ranks agree.

    python -m benchmarks.several_gpus --results several.jsonl             # minutes; goes on where it stopped
    python -m benchmarks.several_gpus --size tiny --device cpu --presets 1m  # whether everything runs

Every GPU takes the same number of samples a step (weak scaling). Runs steer with DGA; a window of steps with
a measurement in it, less the median of those without, is what a measurement costs. With --restart, one more
run replays the mixtures of another while one of its ranks is killed, and ends on half of the ranks: both must
have drawn the same samples at every step.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.kept_lines import KeptLines
from benchmarks.object_storage import upload, use
from benchmarks.overhead import SIZES
from benchmarks.synthetic_corpus import synthetic_corpus
from benchmarks.table import machine_line, table
from pipeline import Corpus
from tests.servers.seaweedfs import seaweedfs
from trainer.results.results import read_metrics
from trainer.run.distributed import choose_device
from trainer.run.run_folder import device_name

INTERVAL = 100
"""Steps between measurements that the overhead is given for."""
WARM_UP = 3
"""Windows that do not count: models are compiled in them."""
Notes = dict[int, tuple[set[str], list[int]]]
"""By step: digests of the mixture on all ranks, and the positions of the global batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One run."""

    preset: str
    gpus: int
    source: str
    """local or s3."""
    data_parallel: str = "replicate"
    steps: int

    @property
    def name(self) -> str:
        """Of its folder and its row."""
        return f"{self.preset}-{self.gpus}-{self.source}-{self.data_parallel}"


class Bench:
    """Runs on one corpus, in a folder and, when asked for, in an S3 server."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.device = folder, options.device
        self.size = SIZES[options.size]
        self.corpus: Corpus = synthetic_corpus(folder / "corpus", self.size.text)
        self.addresses = {"local": str(folder / "corpus")}
        self.window = max(2, options.steps // 30)
        self.update_every = 5 * self.window

    def config(self, trial: Trial, **changes: Any) -> dict[str, Any]:
        """DGA that measures after every fifth window."""
        return {
            "target": self.corpus.target_names[0],
            "mixer": "dga",
            "k": self.size.ks[0],
            "update_every": self.update_every,
            "sequences_per_domain": 2,
            "measured_tokens": self.size.text.tokens_per_sample // 4,
            "preset": trial.preset,
            "data_parallel": trial.data_parallel,
            "steps": trial.steps,
            "batch_size": self.size.batch_size * trial.gpus,
            "learning_rate": 6e-4,
            "log_every": self.window,
            "eval_every": trial.steps,
            "eval_sequences": self.size.batch_size * trial.gpus,
            "checkpoint_every": trial.steps,
            **changes,
        }

    def start(
        self,
        out: Path,
        trial: Trial,
        config: dict[str, Any],
        gpus: int,
        profiled: dict[str, tuple[int, int]] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Begin or continue the run in `out`; torchrun may restart it once.

        `profiled`: the first step, and how many, of which the first rank says what its GPU did, by name.
        """
        out.mkdir(exist_ok=True)
        told = {
            "corpus": self.addresses[trial.source],
            "cache": str(out / "cache"),
            "device": self.device,
            "out": str(out),
            "config": config,
            "profiled": profiled,
        }
        launcher = ["-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
        processes = [f"--nproc-per-node={gpus}", "-m", "benchmarks.several_gpus_rank"]
        return subprocess.Popen([sys.executable, *launcher, *processes, json.dumps(told)])

    def measure(self, trial: Trial) -> dict[str, Any]:
        """Speed, overhead and waiting of one run, and the steps at which its ranks' mixtures differed."""
        out = self.folder / trial.name
        started = time.perf_counter()
        profiled = self.profiled(trial)
        finish(self.start(out, trial, self.config(trial), trial.gpus, profiled))
        seconds = time.perf_counter() - started
        records, _ = read_metrics(out / "metrics.jsonl")
        logged = [each for each in records if each["event"] == "train"][WARM_UP:-1]
        tokens = self.window * self.size.batch_size * trial.gpus * self.size.text.tokens_per_sample
        plain: list[float] = []
        measured: list[float] = []
        for each in logged:
            has_one = each["step"] > self.window and each["step"] % self.update_every == self.window
            (measured if has_one else plain).append(tokens / each["tokens_per_second"])
        counted = measured[1 : -1 if profiled else None]  # the first one compiles
        extra = [each - median(plain) for each in counted]
        notes = read_notes(out, trial.gpus)
        return {
            **asdict(trial),
            "name": trial.name,
            "tokens_per_second": tokens / median(plain),
            "tokens_per_step": tokens // self.window,
            "window_seconds": [min(plain), median(plain), max(plain)],
            "extra_seconds": extra,
            "overhead": median(extra) / (INTERVAL * median(plain) / self.window),
            "data_wait": median(each["data_wait_share"] for each in logged),
            "steps": len(notes),
            "mixtures": len({digest for digests, _ in notes.values() for digest in digests}),
            "steps_that_differ": sum(len(digests) > 1 for digests, _ in notes.values()),
            **top_of_profile(out / "profile.json"),
            "seconds": seconds,
        }

    def profiled(self, trial: Trial) -> dict[str, tuple[int, int]] | None:
        """The last measurement with a step before and after it, and the steps of the last window."""
        if self.window < 4:
            return None
        last = trial.steps - self.window
        return {
            "measurement": ((last - 1) // self.update_every * self.update_every, 2),
            "steps": (last + 2, self.window - 2),
        }

    def restart(self, trial: Trial) -> dict[str, Any]:
        """Replay a run, kill a rank of it, continue it on half of its ranks; where draws differed."""
        first, out = self.folder / trial.name, self.folder / f"{trial.name}-restarted"
        config = self.config(
            trial,
            mixer="schedule",
            weights_file=str(first / "metrics.jsonl"),
            checkpoint_every=5 * self.window,
            compile="off",  # draws do not depend on it, and each of the three starts is a minute shorter
        )
        del config["update_every"]
        last = trial.gpus - 1
        run = self.start(out, trial, config, trial.gpus)
        killed_at = wait_for(out, last, trial.steps // 3, run)
        os.kill(int((out / f"rank{last}.pid").read_text("utf-8")), signal.SIGKILL)
        stopped_at = wait_for(out, last, trial.steps * 2 // 3, run)
        run.send_signal(signal.SIGTERM)
        run.wait()
        drawn = read_notes(out, trial.gpus)
        half = trial.gpus // 2
        (out / "wide").mkdir()
        for rank in range(trial.gpus):
            (out / f"rank{rank}.jsonl").rename(out / "wide" / f"rank{rank}.jsonl")
        finish(self.start(out, trial, config, half))
        expected, rest = read_notes(first, trial.gpus), read_notes(out, half)
        drawn = {step: drawn[step] for step in drawn if step < min(rest)} | rest
        return {
            "name": f"{trial.name}-restarted",
            "gpus": [trial.gpus, trial.gpus, half],
            "killed_at": killed_at,
            "stopped_at": stopped_at,
            "continued_at": min(rest),
            "steps": len(drawn),
            "steps_that_differ": sum(drawn.get(step) != expected[step] for step in expected),
        }


def top_of_profile(path: Path) -> dict[str, Any]:
    """By range: milliseconds a step of all kernels, of those that exchange data, and of the longest."""
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {
        f"{name}_ms": {
            "all": sum(each["kernels"].values()),
            "nccl": sum(ms for key, ms in each["kernels"].items() if key.startswith("nccl")),
            "kernels": longest(each["kernels"]),
            "calls": longest(each["calls"]),
            **each["memory"],
        }
        for name, each in found.items()
    }


def longest(times: dict[str, float]) -> dict[str, float]:
    """The five longest."""
    return dict(sorted(times.items(), key=lambda pair: -pair[1])[:5])


def finish(run: subprocess.Popen[bytes]) -> None:
    """Wait for a run that has to succeed."""
    if run.wait():
        raise SystemExit(f"a run ended with exit code {run.returncode}")


def wait_for(out: Path, rank: int, step: int, run: subprocess.Popen[bytes]) -> int:
    """The step, `step` or later, that a rank has come to."""
    notes = out / f"rank{rank}.jsonl"
    while run.poll() is None:
        lines = notes.read_text("utf-8").splitlines() if notes.exists() else []
        if len(lines) > 1 and (reached := int(json.loads(lines[-2])[0])) >= step:
            return reached
        time.sleep(0.05)
    raise SystemExit(f"a run ended with exit code {run.returncode} before step {step}")


def read_notes(out: Path, gpus: int) -> Notes:
    """What was drawn; of a step that was repeated, the last time counts, which is what was learned from."""
    notes: list[dict[int, tuple[str, list[int]]]] = []
    for rank in range(gpus):
        of_rank = {}
        for line in (out / f"rank{rank}.jsonl").read_text("utf-8").splitlines():
            try:
                step, digest, positions = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line at which this rank was killed; the step was repeated
            of_rank[step] = digest, positions
        notes.append(of_rank)
    return {
        step: (
            {of_rank[step][0] for of_rank in notes},
            sorted(position for of_rank in notes for position in of_rank[step][1]),
        )
        for step in notes[0]
    }


def report(found: list[dict[str, Any]]) -> str:
    """The table, and a line for the run that was killed."""
    alone = {
        (each["preset"], each["source"]): each["tokens_per_second"]
        for each in found
        if each.get("gpus") == 1
    }
    rows, lines = [], []
    for each in found:
        if "killed_at" in each:
            lines.append(
                f"{each['name']}: rank killed at step {each['killed_at']}, all stopped at "
                f"{each['stopped_at']}, continued at {each['continued_at']} on {each['gpus'][-1]}; of "
                f"{each['steps']} steps, {each['steps_that_differ']} drew other samples."
            )
            continue
        one = alone.get((each["preset"], each["source"])) or alone.get((each["preset"], "local"))
        speed = each["tokens_per_second"]
        rows.append(
            [
                each["preset"],
                str(each["gpus"]),
                each["data_parallel"],
                each["source"],
                f"{speed:,.0f}",
                f"{speed / (one * each['gpus']):.1%}" if one else "",
                f"{each['overhead']:.1%}",
                f"{each['data_wait']:.2%}",
                step_and_kernels(each),
                f"{each['mixtures']} over {each['steps']}, {each['steps_that_differ']} differ",
            ]
        )
    header = ["model", "GPUs", "data parallel", "source", "tokens/s", "efficiency"]
    header += [f"DGA every {INTERVAL}", "data wait", "ms a step (kernels, of them NCCL)"]
    header += ["mixtures over steps"]
    return table(header, rows) + "\n" + "\n".join(lines)


def step_and_kernels(line: dict[str, Any]) -> str:
    """Milliseconds a step, and for how many of them the first GPU computed and exchanged."""
    tokens = line["tokens_per_step"]
    spent = f"{1e3 * tokens / line['tokens_per_second']:.1f}"
    kernels = line.get("steps_ms")
    return f"{spent} ({kernels['all']:.1f}, {kernels['nccl']:.1f})" if kernels else spent


def main() -> None:
    """Print the table, and everything behind it as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--presets", default="110m,350m")
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs")
    parser.add_argument("--sources", default="local,s3")
    parser.add_argument("--data-parallel", default="replicate,shard")
    parser.add_argument("--steps", type=int, default=300, help="of a run")
    parser.add_argument(
        "--restart",
        action="store_true",
        help="kill and continue every local run on several GPUs",
    )
    parser.add_argument("--results", type=Path, help="keep results here; what is there counts")
    options = parser.parse_args()
    device = device_name(choose_device(options.device))
    found = KeptLines(
        options.results, {"size": options.size, "steps": options.steps, "device": device}
    )
    trials = [
        Trial(
            preset=preset,
            gpus=gpus,
            source=source,
            data_parallel=data_parallel,
            steps=options.steps,
        )
        for preset in options.presets.split(",")
        for gpus in map(int, options.gpus.split(","))
        for data_parallel in options.data_parallel.split(",")
        for source in options.sources.split(",")
        if data_parallel == "replicate" or (gpus > 1 and source == "local")
    ]
    with tempfile.TemporaryDirectory(prefix="braidstream-bench-") as name, ExitStack() as servers:
        folder = Path(name)
        bench = Bench(folder, options)
        if "s3" in options.sources.split(","):
            (folder / "server").mkdir()
            server = servers.enter_context(seaweedfs(folder / "server"))
            use(server)
            bench.addresses["s3"] = server.address("corpus")
            upload(folder / "corpus", bench.addresses["s3"])

        def keep(line: dict[str, Any]) -> None:
            found.add(line)
            print(json.dumps(line), flush=True)

        for trial in trials:
            restarts = options.restart and trial.gpus > 1 and trial.source == "local"
            names = [trial.name, *([f"{trial.name}-restarted"] if restarts else [])]
            if not {line["name"] for line in found.lines}.issuperset(names):
                keep(bench.measure(trial))  # again, where a restart is missing that replays it
                if restarts:
                    keep(bench.restart(trial))
    print(f"\n{device}; {machine_line()}\n")
    print(report(found.lines))
    print(json.dumps(found.lines))


if __name__ == "__main__":
    main()
