"""Charts per run and domain: the mixture as a stacked area over time, alignment scores as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.report.names import DomainNames
from trainer.report.style import (
    DOMAIN_COLORS,
    REST_COLOR,
    Figure,
    layout,
    plain,
    rounded,
    translucent,
)
from trainer.results.results import DomainValues, Floats, Run

NUM_SCORED_DOMAINS = 20
"""Rows of a heat map: half of them the best aligned domains, half the worst."""
VISIBLE_DIFFERENCE = 0.01
"""Total variation from which the sampled mixture is drawn beside the one that was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """The domains that get a color of their own in a family of area charts, and what they are called."""

    domains: tuple[int, ...]
    names: DomainNames
    complete: bool
    """Whether these are all domains that anything was drawn from."""

    def legend(self) -> list[tuple[str, str]]:
        """(color, name) of every domain shown, then of the rest if there is one."""
        named = [
            (DOMAIN_COLORS[i], self.names.short(domain)) for i, domain in enumerate(self.domains)
        ]
        return named if self.complete else [*named, (REST_COLOR, "all other domains")]


def make_palette(runs: Sequence[Run], names: DomainNames) -> Palette:
    """Choose the domains with the largest share in any of `runs`, averaged over that run's time.

    One palette serves all runs of a target and view, so that a color means the same in each of them.
    """
    k = runs[0].k
    largest = np.zeros(k)
    for run in runs:
        for records in (run.mixtures.weights, run.mixtures.effective):
            if records:
                largest = np.maximum(largest, _mean(records, k))
    order = np.argsort(-largest, kind="stable")[: len(DOMAIN_COLORS)]
    domains = tuple(int(i) for i in order if largest[i] > 0)
    return Palette(domains=domains, names=names, complete=len(domains) == int((largest > 0).sum()))


def sampled_differs(run: Run) -> bool:
    """Whether the budget ever changed visibly what the mixer asked for."""
    pairs = zip(run.mixtures.weights, run.mixtures.effective, strict=True)
    return any(
        0.5 * np.abs(asked.dense(run.k) - sampled.dense(run.k)).sum() > VISIBLE_DIFFERENCE
        for asked, sampled in pairs
        if len(sampled.index)
    )


def area_chart(
    run: Run, palette: Palette, *, sampled: bool = False, last_step: int
) -> Figure | None:
    """Shares over time, stacked to 1; `sampled` draws them after the repetition budget.

    A mixture holds until the next one, so shares move in steps, and the last one to `last_step`.
    """
    records = run.mixtures.effective if sampled else run.mixtures.weights
    if not records:
        return None
    shares = np.stack([_select(record, palette.domains) for record in records])
    rest = np.clip(1.0 - shares.sum(axis=1, keepdims=True), 0.0, 1.0)
    columns = np.concatenate([shares, rest], axis=1)
    steps = run.mixtures.steps.tolist()
    if steps[-1] < last_step:
        steps, columns = [*steps, last_step], np.concatenate([columns, columns[-1:]])
    labels = [palette.names.long(domain) for domain in palette.domains] + ["all other domains"]
    colors = [*DOMAIN_COLORS[: len(palette.domains)], REST_COLOR]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "stackgroup": "mixture",
            "name": plain(label),
            "x": steps,
            "y": rounded(column),
            "line": {"width": 0.6, "color": color, "shape": "hv"},
            "fillcolor": translucent(color, 0.82),
            "hovertemplate": f"{plain(label)}<br>step %{{x:,}}: %{{y:.1%}}<extra></extra>",
        }
        for label, color, column in zip(labels, colors, columns.T, strict=True)
    ]
    axis = {"range": [0, 1.001], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    return {
        "data": traces,
        "layout": layout(
            "step", "", yaxis=axis, xaxis={"range": [0, last_step]}, margin=SMALL_MARGIN
        ),
    }


SMALL_MARGIN = {"l": 44, "r": 8, "t": 10, "b": 40}


def score_chart(run: Run, names: DomainNames) -> Figure | None:
    """Alignment scores over time; blue domains were pushed up, red ones down.

    None for a run without scores. With many domains only the best and the worst aligned are shown.
    """
    scored = [
        (step, scores)
        for step, scores in zip(run.mixtures.steps.tolist(), run.mixtures.scores, strict=True)
        if scores is not None
    ]
    if not scored:
        return None
    mean = _mean([scores for _, scores in scored], run.k)
    order = np.argsort(mean, kind="stable")
    if run.k > NUM_SCORED_DOMAINS:
        half = NUM_SCORED_DOMAINS // 2
        order = np.concatenate([order[:half], order[-half:]])
    domains = [int(domain) for domain in order]
    table = np.stack([_select(scores, domains) for _, scores in scored], axis=1)
    finite = np.abs(table[np.isfinite(table)])
    limit = (
        float(np.quantile(finite, 0.98)) if finite.size else 1.0
    )  # few outliers do not pale the rest
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": [step for step, _ in scored],
        "y": [plain(names.short(domain)) for domain in domains],
        "z": [rounded(row) for row in table],
        "text": [[plain(names.long(domain))] * len(scored) for domain in domains],
        "zmid": 0,
        "zmin": -limit,
        "zmax": limit,
        "colorscale": SCORE_COLORS,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickformat": ".2~g"},
        "hovertemplate": "%{text}<br>step %{x:,}: %{z:.4~g}<extra></extra>",
    }
    axis = {"tickfont": {"size": 10}, "ticks": "", "type": "category"}
    return {"data": [heat], "layout": layout("step", "", yaxis=axis, margin=SMALL_MARGIN)}


SCORE_COLORS = [
    [0.0, "#b5432a"],
    [0.25, "#e8a78f"],
    [0.5, "#f7f7f5"],
    [0.75, "#8fbbdd"],
    [1.0, "#0a5c9e"],
]


def _mean(records: Sequence[DomainValues], k: int) -> Floats:
    """Mean over the records per domain, shape (k,), without one dense row per record."""
    total = np.zeros(k)
    for record in records:
        total[record.index] += np.nan_to_num(record.value)
    return total / len(records)


def _select(record: DomainValues, domains: Sequence[int]) -> Floats:
    """Values of `domains`, shape (len(domains),); 0 where the record does not list one."""
    position = {int(domain): i for i, domain in enumerate(record.index)}
    found = [record.value[position[d]] if d in position else 0.0 for d in domains]
    return np.array(found, dtype=np.float64)
