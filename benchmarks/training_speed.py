"""How fast `braidstream train` trains, beside a plain loop with the same model on the same card.

    python -m benchmarks.training_speed --results speed.jsonl     # one GPU, minutes; goes on where it stopped
    python -m benchmarks.training_speed --size tiny --device cpu  # whether everything runs

Rounds take turns. A round of ours is a run of its own through the public API, on a corpus in MDS shards that
is mapped from the local disk; its speed is what it wrote into metrics.jsonl. The first windows of a round, in
which a model is compiled, do not count.

    MFU = tokens per second * (6 * parameters + 12 * layers * width * length) / peak
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.kept_lines import KeptLines
from benchmarks.overhead import SIZES, Size
from benchmarks.plain_loop import PlainLoop
from benchmarks.synthetic_corpus import synthetic_corpus
from benchmarks.table import machine_line, table
from pipeline import Corpus, Mixture, MixtureStream
from trainer import TrainConfig, train
from trainer.model import GPT, PRESETS
from trainer.results.results import read_metrics
from trainer.run.distributed import choose_device
from trainer.run.run_folder import device_name

WINDOW = 20
"""Steps between two readings of the loss."""
WARM_UP = 2
"""Windows of a round that do not count."""
H100_TFLOPS = 989.0
"""Dense bfloat16 matrix products of an H100 SXM."""
OURS, PLAIN = "braidstream train", "plain loop"


class Bench:
    """Both loops on one corpus."""

    def __init__(self, folder: Path, size: Size, device: torch.device, mixer: str) -> None:
        self.folder, self.size, self.device, self.mixer = folder, size, device, mixer
        self.corpus = synthetic_corpus(folder / "corpus", size.text)
        self.shape = PRESETS[size.preset](self.corpus.vocab_size, self.corpus.tokens_per_sample)
        tokens = folder / "tokens.bin"
        self.corpus.read(np.arange(self.corpus.num_samples)).tofile(tokens)
        self.model = GPT(self.shape)
        self.plain = PlainLoop(tokens, self.model, batch_size=size.batch_size, device=device)

    @property
    def tokens_per_step(self) -> int:
        """Of both."""
        return self.size.batch_size * self.corpus.tokens_per_sample

    @property
    def flops_per_token(self) -> int:
        """Forward and backward, with attention's two products over the whole context."""
        attention = 12 * self.shape.layers * self.shape.width * self.shape.context_length
        return 6 * self.model.num_parameters + attention

    def round(self, number: int, windows: int) -> dict[str, Any]:
        """Tokens per second of both loops, and the share of time for which ours waited for data."""
        steps = windows * WINDOW
        seconds = list(self.plain.windows(steps, WINDOW))[WARM_UP:]
        run = self.folder / f"run-{number}"
        config = TrainConfig(
            target=self.corpus.target_names[0],
            mixer=self.mixer,
            preset=self.size.preset,  # type: ignore[arg-type]
            steps=steps,
            batch_size=self.size.batch_size,
            learning_rate=6e-4,
            log_every=WINDOW,
            eval_every=steps,
            eval_sequences=self.size.batch_size,
            checkpoint_every=steps,
            device=self.device.type,  # type: ignore[arg-type]
        )
        train(self.corpus, config, run, quiet=True)
        records, _ = read_metrics(run / "metrics.jsonl")
        counted = [record for record in records if record["event"] == "train"][WARM_UP:]
        return {
            PLAIN: [WINDOW * self.tokens_per_step / each for each in seconds],
            OURS: [record["tokens_per_second"] for record in counted],
            "data_wait_share": [record["data_wait_share"] for record in counted],
            "draw_ms": 1e3 * draw_seconds(self.corpus, self.size.batch_size),
            "flops_per_token": self.flops_per_token,
            "tokens_per_step": self.tokens_per_step,
        }


def draw_seconds(corpus: Corpus, batch_size: int, batches: int = 300) -> float:
    """Mean seconds for a batch when nothing else goes on: planning, counting and copying."""
    stream = MixtureStream(corpus, Mixture.natural(corpus.domains(level=1)), batch_size=batch_size)
    next(stream)
    started = time.perf_counter()
    for _ in islice(stream, batches):
        pass
    return (time.perf_counter() - started) / batches


def report(rounds: list[dict[str, Any]], peak_tflops: float) -> str:
    """The table and what belongs beside it."""
    rows = []
    for name in (PLAIN, OURS):
        speeds = [speed for each in rounds for speed in each[name]]
        speed = median(speeds)
        rows.append(
            [
                name,
                f"{speed:,.0f}",
                f"{min(speeds):,.0f} to {max(speeds):,.0f}",
                f"{1e3 * rounds[0]['tokens_per_step'] / speed:.2f}",
                f"{speed * rounds[0]['flops_per_token'] / (1e12 * peak_tflops):.1%}",
            ]
        )
    ratios = [median(each[OURS]) / median(each[PLAIN]) for each in rounds]
    waits = [share for each in rounds for share in each["data_wait_share"]]
    return (
        table(["", "tokens/s", "range", "ms a step", "MFU"], rows)
        + f"\nOurs over plain, round by round: {', '.join(f'{ratio:.3f}' for ratio in ratios)}."
        + f" Data wait: {median(waits):.2%} of the time (at most {max(waits):.2%});"
        + f" a batch on its own takes {median(each['draw_ms'] for each in rounds):.2f} ms."
    )


def main() -> None:
    """Print the table, and everything behind it as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--mixer", default="natural", help="of our loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=6, help=f"of {WINDOW} steps, in a round")
    parser.add_argument("--peak-tflops", type=float, default=H100_TFLOPS, help="of the device")
    parser.add_argument("--results", type=Path, help="keep rounds here; what is there counts")
    options = parser.parse_args()
    size, device = SIZES[options.size], choose_device(options.device)
    settings = {name: getattr(options, name) for name in ("size", "mixer", "windows")}
    rounds = KeptLines(options.results, {**settings, "device": device_name(device)})
    with tempfile.TemporaryDirectory() as folder:
        if len(rounds.lines) < options.rounds:
            bench = Bench(Path(folder), size, device, options.mixer)
        while len(rounds.lines) < options.rounds:
            rounds.add(bench.round(len(rounds.lines), options.windows))
            print(report(rounds.lines[-1:], options.peak_tflops), flush=True)
    print(f"\n{device_name(device)}, torch {torch.__version__}; {machine_line()}")
    print(f"{size.preset}, {size.batch_size} x {size.text.tokens_per_sample} tokens a step.\n")
    print(report(rounds.lines, options.peak_tflops))
    print(json.dumps(rounds.lines))


if __name__ == "__main__":
    main()
