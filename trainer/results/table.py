"""The table of a comparison: one row per target, mixer and granularity, averaged over seeds.

Losses are in nats per token. "±" is the sample standard deviation over the seeds; one seed has none.
Only finished runs count, so that no row compares a full run with a part of one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.compare.grid import ignores_view
from trainer.mixers import PRESETS
from trainer.results.results import Floats, Run

Key = tuple[str, int | None]
"""A mixer and its number of domains (None where the mixer ignores the view)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A number that was measured once per seed."""

    mean: float
    deviation: float
    """Sample standard deviation; NaN for a single seed."""

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        """Summarize the values of the seeds; NaN (a run that diverged) stays NaN."""
        array = np.array(list(values), dtype=np.float64)
        if array.size == 0:
            return Spread(mean=math.nan, deviation=math.nan)
        deviation = float(array.std(ddof=1)) if array.size > 1 else math.nan
        return Spread(mean=float(array.mean()), deviation=deviation)

    def text(self, digits: int = 3) -> str:
        """`3.070 ± 0.012`, without the spread for one seed; a dash for no number."""
        if math.isnan(self.mean):
            return "-"
        mean = f"{self.mean:,.{digits}f}"
        return mean if math.isnan(self.deviation) else f"{mean} ± {self.deviation:.{digits}f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One mixer at one granularity on one target."""

    target: str
    mixer: str
    k: int | None
    seeds: tuple[int, ...]
    final: Spread
    """Target loss at the end of the run."""
    best: Spread
    """Lowest target loss of the run: what stopping early would have given."""
    best_steps: tuple[int, int] | None
    """Earliest and latest step of the best, over the seeds; None where no loss is a number."""
    generic: Spread
    """Loss on held-out text in natural proportions at the end."""
    gap: Spread
    """Target test loss less target train loss at the end: what was learned by heart."""
    passes: Spread
    """Passes on the most repeated domain."""
    effective_domains: Spread
    """exp(entropy) of the mixture at the end."""

    @property
    def label(self) -> str:
        """`dga, k = 64`."""
        return label_of((self.mixer, self.k))


def label_of(key: Key) -> str:
    """How a mixer at a granularity is called in tables and legends."""
    mixer, k = key
    return mixer if k is None else f"{mixer}, k = {k:,}"


def key_of(run: Run) -> Key:
    """The row that a run belongs to."""
    return run.mixer, None if ignores_view(run.mixer) else run.k


def targets_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """Targets under comparison: those that steer a run, or all evaluated ones if none does."""
    steering = dict.fromkeys(run.target for run in runs if run.target is not None)
    return tuple(steering) or tuple(dict.fromkeys(t for run in runs for t in run.targets()))


def group(runs: Sequence[Run], target: str) -> dict[Key, list[Run]]:
    """Runs that count for `target`, by row: mixers in a fixed order, then k, then seeds."""
    ordered = sorted(runs, key=lambda run: (rank(run.mixer), run.mixer, run.k, run.seed))
    groups: dict[Key, list[Run]] = {}
    for run in ordered:
        if target in run.targets():
            groups.setdefault(key_of(run), []).append(run)
    return groups


def rank(mixer: str) -> int:
    """Position of a mixer in every table and legend: the order of the presets, unknown ones last."""
    names = list(PRESETS)
    preset = mixer.partition("+")[0]
    return names.index(preset) if preset in names else len(names)


def make_rows(runs: Sequence[Run]) -> list[Row]:
    """Rows of all targets, from the finished runs."""
    finished = [run for run in runs if run.finished]
    return [
        _row(target, key, members)
        for target in targets_of(runs)
        for key, members in group(finished, target).items()
    ]


def _row(target: str, key: Key, runs: Sequence[Run]) -> Row:
    def over_seeds(measure: Callable[[Run], float]) -> Spread:
        return Spread.of(measure(run) for run in runs)

    losses = [run.evaluations.target_loss.get(target, np.zeros(0)) for run in runs]
    best_steps = [
        int(run.evaluations.steps[np.nanargmin(loss)])
        for run, loss in zip(runs, losses, strict=True)
        if np.isfinite(loss).any()
    ]
    return Row(
        target=target,
        mixer=key[0],
        k=key[1],
        seeds=tuple(run.seed for run in runs),
        final=Spread.of(_last(loss) for loss in losses),
        best=Spread.of(
            float(np.nanmin(loss)) if np.isfinite(loss).any() else math.nan for loss in losses
        ),
        best_steps=(min(best_steps), max(best_steps)) if best_steps else None,
        generic=over_seeds(lambda run: _last(run.evaluations.generic_loss)),
        gap=over_seeds(lambda run: _gap(run, target)),
        passes=over_seeds(lambda run: _last(run.mixtures.most_repeated())),
        effective_domains=over_seeds(lambda run: _last(run.mixtures.effective_domains)),
    )


def _gap(run: Run, target: str) -> float:
    test = run.evaluations.target_loss.get(target, np.zeros(0))
    train = run.evaluations.target_train_loss.get(target, np.zeros(0))
    return _last(test) - _last(train)


def _last(values: Floats) -> float:
    return float(values[-1]) if len(values) else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the table: how it is called, what it says, and whether less is better."""

    title: str
    text: Callable[[Row], str]
    ranked: Callable[[Row], float] | None = None
    """Number whose lowest value is marked as best; None where lower is not better."""


def _steps_text(row: Row) -> str:
    if row.best_steps is None:
        return "-"
    first, last = row.best_steps
    return f"{first:,}" if first == last else f"{first:,}-{last:,}"


COLUMNS = (
    Column(title="mixer", text=lambda row: row.mixer),
    Column(title="k", text=lambda row: "any" if row.k is None else f"{row.k:,}"),
    Column(
        title="final target loss",
        text=lambda row: row.final.text(),
        ranked=lambda row: row.final.mean,
    ),
    Column(
        title="best target loss",
        text=lambda row: row.best.text(),
        ranked=lambda row: row.best.mean,
    ),
    Column(title="best at step", text=_steps_text),
    Column(
        title="generic loss",
        text=lambda row: row.generic.text(),
        ranked=lambda row: row.generic.mean,
    ),
    Column(title="gap", text=lambda row: row.gap.text()),
    Column(title="most passes", text=lambda row: row.passes.text(1)),
    Column(title="effective domains", text=lambda row: row.effective_domains.text(1)),
    Column(title="seeds", text=lambda row: str(len(row.seeds))),
)


def best_rows(rows: Sequence[Row], column: Column) -> frozenset[int]:
    """Positions of the best rows of one target in one column; empty where nothing is ranked.

    Two rows that print the same are both best: the digits shown are the digits that are meant.
    """
    if column.ranked is None or len(rows) < 2:
        return frozenset()
    values = [column.ranked(row) for row in rows]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return frozenset()
    lowest = f"{min(finite):.3f}"
    return frozenset(i for i, value in enumerate(values) if f"{value:.3f}" == lowest)


def rows_of(rows: Sequence[Row], target: str) -> list[Row]:
    """The rows of one target."""
    return [row for row in rows if row.target == target]


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown, one per target, best values in bold."""
    blocks = []
    for target in dict.fromkeys(row.target for row in rows):
        members = rows_of(rows, target)
        best = {column.title: best_rows(members, column) for column in COLUMNS}
        lines = [f"### {target}", ""]
        lines.append("| " + " | ".join(column.title for column in COLUMNS) + " |")
        lines.append("|" + "|".join("---" if i == 0 else "---:" for i in range(len(COLUMNS))) + "|")
        for i, row in enumerate(members):
            texts = (
                f"**{column.text(row)}**" if i in best[column.title] else column.text(row)
                for column in COLUMNS
            )
            lines.append("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def comma_separated(rows: Sequence[Row]) -> str:
    """The table as CSV with full precision; standard deviations have columns of their own."""
    measures = ("final", "best", "generic", "gap", "passes", "effective_domains")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = [part for name in measures for part in (name, f"{name}_deviation")]
    writer.writerow(["target", "mixer", "k", "seeds", *header, "best_step_first", "best_step_last"])
    for row in rows:
        spreads: list[Spread] = [getattr(row, name) for name in measures]
        numbers = [_cell(x) for spread in spreads for x in (spread.mean, spread.deviation)]
        k = "" if row.k is None else row.k
        writer.writerow(
            [row.target, row.mixer, k, len(row.seeds), *numbers, *(row.best_steps or ("", ""))]
        )
    return text.getvalue()


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
