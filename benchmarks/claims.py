"""The two claims of the paper, each as a sweep of whole comparisons.

    python -m benchmarks.claims tokens CORPUS --out RUNS --targets recipes --parallel 6 --steps 1200
    python -m benchmarks.claims examples CORPUS --out RUNS --targets recipes --parallel 6 --steps 1200
    python -m benchmarks.claims_plot RUNS

`tokens`: with few tokens per domain importance sampling overfits, and DGA does not.
`examples`: with few examples of the target importance sampling is trapped in narrow clusters, DGA less so;
every seed has examples of its own.

Each value of a sweep is a corpus of its own (`cut_corpus`), made in RUNS. What is done is skipped: the same
command goes on where it stopped. Options that this does not know are passed on to every run: see
`braidstream compare --help`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks.cut_corpus import cut_domains, cut_examples
from benchmarks.table import machine_line, table
from pipeline import BraidstreamError, BudgetError, Corpus, open_corpus
from pipeline.stream.budget import RepetitionBudget
from trainer.compare.compare import CellRun, State, run_cells
from trainer.compare.display import make_display, summarize
from trainer.compare.grid import ignores_target, parse_grid
from trainer.compare_command import TrainingOptions, prepare_runs
from trainer.mixers import mixer_settings
from trainer.results.results import read_runs
from trainer.results.table import Row, make_rows
from trainer.train_command import names_with_commas

TOKENS = "30k,100k,300k,1M,3M"
EXAMPLES = "8,32,128,all"
MIXERS = "importance,dga,natural,importance-paced,importance-fading,dga-ema"
WHOLE = "all"
UNITS = {"k": 10**3, "M": 10**6}


def main(argv: list[str]) -> int:
    """Run what is not done and print a table; 0 when all of it is done, 1 when a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("claim", choices=("tokens", "examples"))
    parser.add_argument("--values", default="", help=f"default: {TOKENS}, or {EXAMPLES}")
    parser.add_argument("--mixers", default=MIXERS)
    add_grid_options(parser)
    options, others = parser.parse_known_args(argv)
    sweep = options.out / options.claim
    code = 0
    if not options.report_only:
        training = training_options(others)
        corpus = open_corpus(options.corpus)
        values = (options.values or {"tokens": TOKENS, "examples": EXAMPLES}[options.claim]).split(
            ","
        )
        runs: list[CellRun] = []
        for seed, value in product(options.seeds.split(","), values):
            folder = sweep / value
            part = cut(corpus, options.claim, value, folder, k=options.k, seed=int(seed))
            mixers = mixers_for(part, options, training, value)
            grid = parse_grid(
                part, mixers=mixers, ks=str(options.k), targets=options.targets, seeds=seed
            )
            runs += prepare_runs(part, grid, training, folder / "runs")
        code = train(runs, options.parallel)
    if code <= 1:
        report(sweep)
    return code


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """What every sweep of comparisons asks for."""
    parser.add_argument("corpus")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--targets", default="", help="default: all of the corpus")
    parser.add_argument("--k", type=int, default=64, help="number of domains")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side")
    parser.add_argument("--report-only", action="store_true", help="train nothing")


def training_options(args: list[str]) -> TrainingOptions:
    """Options that are passed on to every run."""
    return tyro.cli(TrainingOptions, prog="sweep", args=args, registry=names_with_commas())


def cut(corpus: Corpus, claim: str, value: str, folder: Path, *, k: int, seed: int) -> Corpus:
    """The corpus of one value of the sweep."""
    if value == WHOLE:
        return corpus
    if claim == "tokens":
        return cut_domains(corpus, folder / "corpus", k=k, tokens=number(value))
    return cut_examples(corpus, folder / f"corpus-{seed}", examples=number(value), seed=seed)


def number(value: str) -> int:
    """`30k` is 30,000."""
    unit = UNITS.get(value[-1], 1)
    return int(value.rstrip("".join(UNITS))) * unit


def mixers_for(
    corpus: Corpus, options: argparse.Namespace, training: TrainingOptions, value: str
) -> str:
    """The mixers that can run, and that the sweep makes a difference to.

    Left out are those whose repetition budget the corpus cannot supply, and, where examples are few, those
    that do not look at them.
    """
    sizes, mixers = corpus.domains(k=options.k).sizes, []
    for mixer in options.mixers.split(","):
        if options.claim == "examples" and value != WHOLE and ignores_target(mixer):
            continue
        passes = mixer_settings(mixer).max_passes
        try:
            if passes is not None:
                budget = RepetitionBudget(max_passes=passes, num_steps=training.steps)
                budget.check(sizes, training.batch_size)
        except BudgetError as error:
            print(f"{value}: no {mixer}: {error}", flush=True)
        else:
            mixers.append(mixer)
    return ",".join(mixers)


def train(runs: list[CellRun], parallel: int) -> int:
    """Run what waits; 0, or 1 when a run failed, or 128 and the number of the signal that stopped it."""
    console = Console()
    print(summarize(runs), flush=True)
    with make_display(console, runs, parallel=parallel) as display:
        stopped = run_cells(runs, parallel=parallel, display=display)
    failed = [run for run in runs if run.state is State.FAILED]
    for run in failed:
        print(run.failure(), file=sys.stderr)
    if stopped:
        print("Stopped. What ran is saved; the same command goes on.", flush=True)
        return 128 + stopped
    return 1 if failed else 0


def rows_of(sweep: Path) -> Iterator[tuple[str, Row]]:
    """What the finished runs of a sweep say: (value, row), by value from the smallest."""
    folders = [folder for folder in sweep.iterdir() if (folder / "runs").is_dir()]
    folders.sort(
        key=lambda folder: (folder.name == WHOLE, folder.name != WHOLE and number(folder.name))
    )
    for folder in folders:
        for row in make_rows(read_runs(folder / "runs")):
            yield folder.name, row


def report(sweep: Path) -> None:
    """Print the table of a sweep, and the same as one line of JSON."""
    rows = sorted(rows_of(sweep), key=lambda pair: pair[1].target)
    header = ["target", sweep.name, "mixer", "final", "best", "at step", "generic", "most passes"]
    header += ["domains in use"]
    print(f"\n{machine_line()}\n\n{table(header, [cells(value, row) for value, row in rows])}")
    lines = json.dumps([{"value": value, **asdict(row)} for value, row in rows])
    print(json.dumps(json.loads(lines, parse_constant=lambda name: None)))  # NaN is no JSON


def cells(value: str, row: Row) -> list[str]:
    """One row of the table."""
    steps = dict.fromkeys(row.best_steps or ())
    return [
        row.target,
        value,
        row.mixer,
        row.final.text(),
        row.best.text(),
        " to ".join(f"{step:,}" for step in steps),
        row.generic.text(),
        row.passes.text(1),
        row.effective_domains.text(1),
    ]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BraidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
