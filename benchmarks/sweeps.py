"""What η, T_r and β do: single settings of a mixer varied one at a time, each run of a comparison's kind.

    python -m benchmarks.sweeps CORPUS --out RUNS --targets recipes,medical_qa --steps 1200 --parallel 6
    python -m benchmarks.sweeps CORPUS --out RUNS --mixers dga-paced --sweep step_size=1,5,25 --seeds 0,1
    python -m benchmarks.sweeps_plot RUNS

Whatever a mixer's name can vary can be swept; a value that the mixer has anyway is its own run. What is
done is skipped: the same command goes on where it stopped, and a further one adds to the same folder.
Options that this does not know are passed on to every run: see `braidstream compare --help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

from benchmarks.claims import add_grid_options, train, training_options
from benchmarks.table import machine_line
from pipeline import BraidstreamError, open_corpus
from trainer.compare.grid import parse_grid
from trainer.compare_command import prepare_runs
from trainer.mixers import MEASURED, measuring_changes, mixer_settings
from trainer.results.results import read_runs
from trainer.results.table import Row, make_rows, markdown
from trainer.run.config import TrainConfig

MIXERS = "dga,dga-paced"
REFERENCES = "natural,importance,importance-paced"
SWEEPS = ("step_size=0.5,1.5,5,15,50", "update_every=5,10,25,50,100,200", "ema=0.03,0.1,0.3,1")


class Point(NamedTuple):
    """One value of one setting of one mixer, on one target."""

    setting: str
    mixer: str
    """What is varied."""
    value: float | str
    row: Row


def main(argv: list[str]) -> int:
    """Run what is not done and print a table; 0 when all of it is done, 1 when a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mixers", default=MIXERS, help="what is varied")
    parser.add_argument("--references", default=REFERENCES, help="what is not, for comparison")
    parser.add_argument(
        "--sweep",
        action="append",
        metavar="SETTING=A,B,…",
        help=f"again for each setting; default: {' '.join(SWEEPS)}",
    )
    add_grid_options(parser)
    options, others = parser.parse_known_args(argv)
    code = 0
    if not options.report_only:
        training = training_options(others)
        corpus = open_corpus(options.corpus)
        mixers = [
            *filter(None, options.references.split(",")),
            *varied(options.mixers.split(","), options.sweep or SWEEPS),
        ]
        grid = parse_grid(
            corpus,
            mixers=",".join(mixers),
            ks=str(options.k),
            targets=options.targets,
            seeds=options.seeds,
        )
        code = train(prepare_runs(corpus, grid, training, options.out), options.parallel)
    if code <= 1:
        print(f"\n{machine_line()}\n\n{markdown(make_rows(read_runs(options.out)))}")
    return code


def varied(mixers: Sequence[str], sweeps: Sequence[str]) -> Iterator[str]:
    """Names of the mixers with each setting at each of its values, everything else as they have it."""
    for mixer in mixers:
        yield mixer
        for sweep in sweeps:
            setting, _, values = sweep.partition("=")
            for value in values.split(","):
                name = f"{mixer}+{setting}={value}"
                if _value(name, setting) != _value(mixer, setting):
                    yield name


def points(rows: Sequence[Row]) -> list[Point]:
    """What a folder's rows say of every setting that was varied in it, values in order."""
    found = [
        Point(setting, mixer, _value(row.mixer, setting), row)
        for setting, mixer in sorted(_changes(rows))
        for row in rows
        if row.mixer == mixer or _change(row.mixer) == (setting, mixer)
    ]
    return sorted(found, key=lambda point: (isinstance(point.value, str), point.value))


def references(rows: Sequence[Row]) -> list[Row]:
    """Rows of mixers of which nothing was varied."""
    varied_mixers = {mixer for _, mixer in _changes(rows)}
    return [row for row in rows if not _change(row.mixer) and row.mixer not in varied_mixers]


def _value(name: str, setting: str) -> float | str:
    of_runs = {field: getattr(TrainConfig(), field) for field in MEASURED}
    value = (asdict(mixer_settings(name)) | of_runs | measuring_changes(name))[setting]
    return "none" if value is None else value  # type: ignore[no-any-return]


def _changes(rows: Sequence[Row]) -> set[tuple[str, str]]:
    return {change for change in map(_change, (row.mixer for row in rows)) if change}


def _change(name: str) -> tuple[str, str] | None:
    """The setting that a mixer's name changes last, and the name without that; None without changes."""
    mixer, plus, change = name.rpartition("+")
    return (change.partition("=")[0], mixer) if plus else None


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BraidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
