"""`braidstream compare`: a grid of training runs, one table, one report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Fixed, Positional, Suppress, arg

from pipeline import BraidstreamError, Corpus, open_corpus
from pipeline.whole_files import write_whole
from trainer.compare.grid import Grid, ignores_target, parse_grid
from trainer.run.config import TrainConfig
from trainer.train_command import names_with_commas

if TYPE_CHECKING:
    from trainer.compare.compare import CellRun
    from trainer.results.results import Run

COMMANDS_FILE = "commands.txt"
REPORT_FILE = "report.html"
_PIPE_COLUMNS = 120
"""Width of the table where no terminal says how wide it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions(TrainConfig):
    """The settings of `braidstream train` without those that the grid varies."""

    target: Fixed[Suppress[str | None]] = None
    evaluate: Fixed[Suppress[tuple[str, ...]]] = ()
    mixer: Fixed[Suppress[str]] = "natural"
    k: Fixed[Suppress[int | None]] = None
    seed: Fixed[Suppress[int]] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareCommand:
    """Find out which mixer and which granularity serve a target: run a grid, get one report.

    Every combination of mixer, k, target and seed is one `braidstream train` run in a folder of its own.
    Runs that do not depend on something are shared: `natural` runs once per seed, `uniform` once per
    seed and k. What is done is skipped, so the same command continues a comparison that was stopped,
    retries runs that failed, and runs only what is new when you add a mixer, a k, a target or a seed.

    A first look, small enough for a laptop:

      braidstream compare corpus --mixers natural,importance,dga --preset 1m --steps 300 --batch-size 16

    The table goes to the terminal, and with the charts to OUT/report.html (one file that opens anywhere);
    OUT/results.md and OUT/results.csv hold the numbers.
    """

    corpus: Annotated[str, Positional, arg(metavar="CORPUS")]
    """Corpus folder, as `braidstream build` writes it, or its address: s3://, gs://, az://, https://."""
    version: int | None = None
    """An earlier version of the corpus, to continue a comparison that began before documents were added;
    default: the newest."""
    mixers: str = "natural,importance,importance-fading,dga"
    """Comma-separated: natural, uniform, importance, importance-ratio, importance-paced,
    importance-fading, importance-general, dga, dga-ema, dga-distributions, dga-paced, dga-paced-general,
    doge, odm, schedule. A name can carry changes, such as dga+step_size=1,dga+step_size=5."""
    k: str = ""
    """Numbers of domains, comma-separated, such as 8,64; default: the tree's first level."""
    targets: str = ""
    """Target sets, comma-separated; default: all of the corpus. One can be several with weights:
    medical_qa,recipes=0.7+medical_qa=0.3."""
    seeds: str = "0"
    """Seeds, comma-separated. Two or more show how much of a difference is chance."""
    out: Path | None = None
    """Folder of the runs and the report; default: CORPUS/runs/comparison."""
    parallel: int = 1
    """Runs side by side, each in a process of its own. They share the processor or the GPU."""
    report_only: bool = False
    """Train nothing: make table and report again from the runs that are in the folder."""
    training: Annotated[TrainingOptions, arg(name="")] = field(default_factory=TrainingOptions)
    """Passed on to every run; `braidstream train --help` says the same."""


def main(argv: list[str]) -> int:
    """Run `braidstream compare`.

    Returns 0 when everything is done, 1 when a run failed, 130 (143) after Ctrl-C (SIGTERM).
    """
    command = tyro.cli(
        CompareCommand,
        prog="braidstream compare",
        args=argv,
        config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
        registry=names_with_commas(),
    )
    if command.parallel < 1:
        raise BraidstreamError(f"--parallel {command.parallel} must be at least 1.")
    from trainer.results.results import read_runs

    corpus = open_corpus(command.corpus, version=command.version)
    out = command.out or corpus.runs / "comparison"
    if not command.report_only:
        grid = parse_grid(
            corpus,
            mixers=command.mixers,
            ks=command.k,
            targets=command.targets,
            seeds=command.seeds,
        )
        stopped, failures = train_grid(corpus, grid, command, out, argv)
        if stopped:
            line = f"braidstream compare {shlex.join(argv)}"
            print(f"Stopped. What ran is saved; the same command continues:\n  {line}", flush=True)
            return 128 + stopped
    else:
        failures = []
    runs = read_runs(out)
    if runs or not failures:
        publish(corpus, runs, out)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    if failures:
        print(f"\n{len(failures)} failed; the same command tries again.", file=sys.stderr)
    return 1 if failures else 0


def train_grid(
    corpus: Corpus, grid: Grid, command: CompareCommand, out: Path, argv: Sequence[str]
) -> tuple[int, list[str]]:
    """Run what is not done; the signal that stopped it (0 for none), and what failed, in words."""
    from rich.console import Console

    from trainer.compare.compare import State, run_cells
    from trainer.compare.display import make_display, summarize
    from trainer.results.results import CONFIG_FILE
    from trainer.run.resolve import learns_nothing
    from trainer.run.run_folder import check_is_free

    if not (out / COMMANDS_FILE).exists() and not any(out.glob(f"*/{CONFIG_FILE}")):
        check_is_free(out)  # report and results would replace somebody's of these names
    runs = prepare_runs(corpus, grid, command.training, out)
    for reason in dict.fromkeys(learns_nothing(run.job.config) for run in runs):
        if reason:
            print(f"note: {reason}", flush=True)
    remember(out / COMMANDS_FILE, f"braidstream compare {shlex.join(argv)}")
    console = Console()
    print(f"{len(runs)} runs in {out}: {summarize(runs)}", flush=True)
    with make_display(console, runs, parallel=command.parallel) as display:
        stopped = run_cells(runs, parallel=command.parallel, display=display)
    return stopped, [run.failure() for run in runs if run.state is State.FAILED]


def prepare_runs(corpus: Corpus, grid: Grid, training: TrainingOptions, out: Path) -> list[CellRun]:
    """All cells of the grid as runs, checked: whoever finds another run's folder stops here."""
    from trainer.compare.compare import Job, prepare
    from trainer.mixers import no_difference
    from trainer.run.config import ConfigError
    from trainer.run.resolve import chosen_settings, unused_settings

    common = TrainConfig(**{f.name: getattr(training, f.name) for f in fields(TrainConfig)})
    unused = {mixer: unused_settings(replace(common, mixer=mixer)) for mixer in grid.mixers}
    for name in set.intersection(*map(set, unused.values())):
        raise ConfigError(no_difference(name, ", ".join(grid.mixers)))
    defaults = TrainConfig()
    left_out: dict[str, dict[str, Any]] = {
        mixer: {name: getattr(defaults, name) for name in names} for mixer, names in unused.items()
    }
    for mixer in grid.mixers:
        settings = chosen_settings(replace(common, mixer=mixer, **left_out[mixer]))
        if settings.needs_target and ignores_target(mixer):
            given = [name for name in settings.uses if getattr(common, name) is not None]
            raise ConfigError(
                f"the mixer {mixer!r} would steer towards the target with {', '.join(given)}, and it runs "
                "once for all targets. Put settings that are for other mixers into their names, such as "
                "dga+importance_share=0.3."
            )
    jobs = [
        Job(
            cell=cell,
            config=replace(
                common,
                mixer=cell.mixer,
                k=cell.k if cell.k is not None else recorded_k(out / cell.name) or max(grid.ks),
                target=cell.target,
                seed=cell.seed,
                **left_out[cell.mixer],
            ),
            corpus=corpus.address,
            version=corpus.manifest.version,
            folder=out / cell.name,
        )
        for cell in grid.cells()
    ]
    return [prepare(job, corpus) for job in jobs]


def recorded_k(folder: Path) -> int | None:
    """The view of a run that is there already: a mixer that ignores the view keeps it."""
    from trainer.results.results import CONFIG_FILE, read_run

    return read_run(folder).k if (folder / CONFIG_FILE).exists() else None


def remember(path: Path, line: str) -> None:
    """Add a command to those that made this folder, unless it is among them."""
    from trainer.run.run_folder import make_folder

    make_folder(path.parent)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if line not in lines:
        path.write_text("\n".join([*lines, line]) + "\n", encoding="utf-8")


def publish(corpus: Corpus, runs: Sequence[Run], out: Path) -> None:
    """Print the table and write report.html, results.md and results.csv from the `runs` in `out`."""
    from rich.console import Console

    from trainer.report.names import names_from_corpus
    from trainer.report.report import render_report
    from trainer.results.headline import make_headlines
    from trainer.results.table import comma_separated, make_rows, markdown
    from trainer.results.terminal import make_tables

    if not runs:
        raise BraidstreamError(
            f"there are no runs in {out}; run the comparison without --report-only, or name the "
            "folder of one with --out."
        )
    rows = make_rows(runs)
    sentences = [headline.sentence() for headline in make_headlines(rows)]
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    for table in make_tables(rows):
        console.print(table)
    print("\n".join(sentences))
    commands_path = out / COMMANDS_FILE
    commands = (
        commands_path.read_text(encoding="utf-8").splitlines() if commands_path.exists() else []
    )
    page = render_report(
        runs,
        title=corpus.name,
        names_of=names_from_corpus(corpus),
        commands=commands,
    )
    write_whole(out / REPORT_FILE, page.encode())  # a browser that reloads never sees half of it
    parts = [
        *(f"- {sentence}" for sentence in sentences),
        "",
        markdown(rows),
        "Losses in nats per token, ± the standard deviation over seeds. Made by",
        "",
        *(f"    {line}" for line in commands),
    ]
    (out / "results.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    (out / "results.csv").write_text(comma_separated(rows), encoding="utf-8")
    print(f"report: {out / REPORT_FILE}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BraidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
