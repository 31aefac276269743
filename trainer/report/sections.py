"""What the report shows of one target: its legend, its table, its charts, in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.report.curves import Groups, loss_chart, passes_chart, spread_chart
from trainer.report.domains import area_chart, make_palette, sampled_differs, score_chart
from trainer.report.names import NamesOf
from trainer.report.outcome import granularity_chart, outcome_chart
from trainer.report.style import DASHES, Colors, Figure, dash_of
from trainer.results.results import Run
from trainer.results.table import COLUMNS, Row, best_rows, group, key_of, label_of, rows_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One chart with the words around it."""

    title: str
    caption: str
    figure: Figure
    height: int = 320


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The area charts of one target and view: they share the colors of domains and a legend."""

    k: int
    legend: list[tuple[str, str]]
    areas: list[Panel]
    more_areas: list[Panel]
    """Further seeds, folded away."""
    scores: list[Panel]


@dataclass(frozen=True, kw_only=True, slots=True)
class LegendEntry:
    """A mixer at a granularity, as the legend of a target shows it."""

    label: str
    """Also the mark (`meta`) of its traces in every chart."""
    color: str
    dash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    """A run's warnings (`trainer.health`), in order."""

    run: str
    color: str
    warnings: list[tuple[int, str]]
    """Step and message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Everything about one target."""

    target: str
    legend: list[LegendEntry]
    table: list[list[tuple[str, bool]]]
    """Texts of the table, row by row, with a mark on the best."""
    panels: list[Panel]
    families: list[Family]
    warned: list[Warned]


def make_section(
    runs: Sequence[Run], rows: Sequence[Row], target: str, names_of: NamesOf, colors: Colors
) -> Section:
    """Everything the report shows of `target`."""
    groups = group(runs, target)
    members = rows_of(rows, target)
    best = [best_rows(members, column) for column in COLUMNS]
    return Section(
        target=target,
        legend=[
            LegendEntry(
                label=label_of(key),
                color=colors[key[0]],
                dash=_css_dash(dash_of(key, groups)),
            )
            for key in groups
        ],
        table=[
            [(column.text(row), i in best[c]) for c, column in enumerate(COLUMNS)]
            for i, row in enumerate(members)
        ],
        panels=_panels(groups, members, target, names_of, colors),
        families=_families(groups, names_of),
        warned=[
            Warned(
                run=run.name,
                color=colors[run.mixer],
                warnings=[(warning.step, warning.message) for warning in run.warnings],
            )
            for members in groups.values()
            for run in members
            if run.warnings
        ],
    )


def _panels(
    groups: Groups, rows: Sequence[Row], target: str, names_of: NamesOf, colors: Colors
) -> list[Panel]:
    found = [
        (
            "Target loss",
            f"Loss on {target}'s test text. Lines are means over seeds, bands their range.",
            loss_chart(
                groups,
                lambda run: (
                    run.evaluations.steps,
                    run.evaluations.target_loss.get(target, np.zeros(0)),  # none before the first
                ),
                "target loss, nats",
                colors,
            ),
        ),
        (
            "Generic loss",
            "Loss on held-out text in natural proportions: what the specialization costs.",
            loss_chart(
                groups,
                lambda run: (run.evaluations.steps, run.evaluations.generic_loss),
                "generic loss, nats",
                colors,
            ),
        ),
        (
            "Granularity",
            "Final target loss against the number of domains that the mixer steers.",
            granularity_chart(rows, colors),
        ),
        (
            "Target against general ability",
            "Where the runs ended. Further down and to the left is better in both.",
            outcome_chart(rows, colors),
        ),
        (
            "Effective domains",
            "exp(entropy) of the mixture: over how many domains it is spread.",
            spread_chart(groups, colors),
        ),
        (
            "Repetition",
            "Passes on the most repeated domain. Hovers name the three most repeated ones.",
            passes_chart(groups, names_of, colors),
        ),
    ]
    return [
        Panel(title=title, caption=caption, figure=figure)
        for title, caption, figure in found
        if figure is not None
    ]


def _families(groups: Groups, names_of: NamesOf) -> list[Family]:
    by_view: dict[int, list[Run]] = {}
    for runs in groups.values():
        for run in runs:
            if len(run.mixtures.steps):
                by_view.setdefault(run.k, []).append(run)
    return [_family(k, by_view[k], names_of) for k in sorted(by_view)]


def _family(k: int, runs: Sequence[Run], names_of: NamesOf) -> Family:
    names = names_of(k)
    palette = make_palette(runs, names)
    last_step = max(int(run.mixtures.steps[-1]) for run in runs)
    first_seed = {
        key: min(run.seed for run in runs if key_of(run) == key) for key in map(key_of, runs)
    }
    areas: dict[bool, list[Panel]] = {True: [], False: []}
    scores = []
    for run in runs:
        is_first = run.seed == first_seed[key_of(run)]
        drawn = [("", False)]
        if sampled_differs(run):
            drawn = [("asked for", False), ("sampled", True)]
        for suffix, sampled in drawn:
            figure = area_chart(run, palette, sampled=sampled, last_step=last_step)
            if figure is not None:
                title = f"{run.mixer} · {suffix}" if suffix else run.mixer
                caption = f"seed {run.seed}" + ("" if run.finished else ", unfinished")
                panel = Panel(title=title, caption=caption, figure=figure, height=230)
                areas[is_first].append(panel)
        heat = score_chart(run, names) if is_first else None
        if heat is not None:
            height = 90 + 17 * len(heat["data"][0]["y"])
            panel = Panel(title=run.mixer, caption=f"seed {run.seed}", figure=heat, height=height)
            scores.append(panel)
    return Family(
        k=k,
        legend=palette.legend(),
        areas=areas[True],
        more_areas=areas[False],
        scores=scores,
    )


def _css_dash(dash: str) -> str:
    """The nearest CSS border style to a Plotly dash."""
    assert dash in DASHES, dash
    return {"solid": "solid", "dot": "dotted"}.get(dash, "dashed")
