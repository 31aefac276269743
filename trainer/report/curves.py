"""Charts over the run: losses, effective domains, passes. One line per mixer and granularity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.report.names import NamesOf
from trainer.report.style import (
    Colors,
    Figure,
    dash_of,
    layout,
    plain,
    rounded,
    translucent,
    visible_range,
)
from trainer.results.results import Floats, Integers, Run
from trainer.results.table import Key, label_of

Groups = Mapping[Key, Sequence[Run]]
Series = Callable[[Run], tuple[Integers, Floats]]
"""Steps and values of one run, both of shape (n,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A measure over the run, summarized over seeds; arrays have shape (n,)."""

    steps: Integers
    mean: Floats
    low: Floats
    high: Floats
    seeds: int


def over_seeds(runs: Sequence[Run], series: Series) -> Curve | None:
    """Mean, lowest and highest over the seeds, at the steps that all of them recorded.

    Unfinished runs are left out where a finished one can stand for the row: one that has just begun
    would cut the curves of the others short.
    """
    chosen = [run for run in runs if run.finished] or list(runs)
    recorded = [series(run) for run in chosen]
    recorded = [(steps, values) for steps, values in recorded if len(steps)]
    if not recorded:
        return None
    steps = recorded[0][0]
    for other, _ in recorded[1:]:
        steps = np.intersect1d(steps, other)
    if not len(steps):
        return None
    table = np.stack([values[np.searchsorted(own, steps)] for own, values in recorded])
    return Curve(
        steps=steps,
        mean=table.mean(axis=0),
        low=table.min(axis=0),
        high=table.max(axis=0),
        seeds=len(recorded),
    )


def loss_chart(groups: Groups, series: Series, title: str, colors: Colors) -> Figure | None:
    """Loss curves; the range leaves out the fall of the first tenth of the run."""
    curves = _curves(groups, series)
    if not curves:
        return None
    shown = visible_range([(c.steps.tolist(), c.mean.tolist()) for c in curves.values()])
    axis = {} if shown is None else {"range": shown}
    traces = [
        t for key, curve in curves.items() for t in _traces(key, curve, groups, colors, ".3f")
    ]
    return {"data": traces, "layout": layout("step", title, yaxis=axis)}


def spread_chart(groups: Groups, colors: Colors) -> Figure | None:
    """Effective number of domains: how concentrated the mixture is."""
    curves = _curves(groups, lambda run: (run.mixtures.steps, run.mixtures.effective_domains))
    if not curves:
        return None
    traces = [
        t for key, curve in curves.items() for t in _traces(key, curve, groups, colors, ".1f")
    ]
    ticks = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
    axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,}" for tick in ticks]}
    return {
        "data": traces,
        "layout": layout("step", "effective domains, exp(entropy)", yaxis=axis),
    }


def passes_chart(groups: Groups, names_of: NamesOf, colors: Colors) -> Figure | None:
    """Passes on the most repeated domain; hovers name the three most repeated ones."""
    curves = _curves(groups, lambda run: (run.mixtures.steps, run.mixtures.most_repeated()))
    if not curves:
        return None
    traces = []
    for key, curve in curves.items():
        lines = _traces(key, curve, groups, colors, ".1f")
        lines[-1]["customdata"] = _most_repeated(groups[key][0], curve.steps, names_of)
        lines[-1]["hovertemplate"] += "<br>%{customdata}"
        traces += lines
    return {
        "data": traces,
        "layout": layout(
            "step", "passes on the most repeated domain", yaxis={"rangemode": "tozero"}
        ),
    }


def _most_repeated(run: Run, steps: Integers, names_of: NamesOf) -> list[str]:
    names = names_of(run.k)
    records = dict(zip(run.mixtures.steps.tolist(), run.mixtures.passes, strict=True))
    return [
        "<br>".join(
            f"{passes:.1f} times {plain(names.long(domain))}"
            for domain, passes in records[step].top(3)
        )
        if step in records
        else ""
        for step in steps.tolist()
    ]


def _curves(groups: Groups, series: Series) -> dict[Key, Curve]:
    found = {key: over_seeds(runs, series) for key, runs in groups.items()}
    return {key: curve for key, curve in found.items() if curve is not None}


def _traces(
    key: Key, curve: Curve, groups: Groups, colors: Colors, digits: str
) -> list[dict[str, Any]]:
    """The band over seeds, where there is more than one, and the line of the mean (last)."""
    color, label = colors[key[0]], plain(label_of(key))
    unfinished = not any(run.finished for run in groups[key])
    traces: list[dict[str, Any]] = []
    if curve.seeds > 1:
        steps = curve.steps.tolist()
        traces.append(
            {
                "type": "scatter",
                "x": steps + steps[::-1],
                "y": rounded([*curve.low, *curve.high[::-1]]),
                "fill": "toself",
                "fillcolor": translucent(color, 0.16),
                "mode": "lines",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "meta": label_of(key),
            }
        )
    suffix = " (unfinished)" if unfinished else ""
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": label,
            "meta": label_of(key),
            "x": curve.steps.tolist(),
            "y": rounded(curve.mean),
            "line": {"color": color, "width": 2.2, "dash": dash_of(key, groups)},
            "opacity": 0.55 if unfinished else 1.0,
            "hovertemplate": f"<b>{label}</b>{suffix}<br>step %{{x:,}}: %{{y:{digits}}}<extra></extra>",
        }
    )
    return traces
