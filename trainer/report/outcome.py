"""Charts of where the runs ended: granularity against loss, the target against general ability."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.report.style import Colors, Figure, layout, padded_range, plain, rounded
from trainer.results.table import Row, Spread


def granularity_chart(rows: Sequence[Row], colors: Colors) -> Figure | None:
    """Final target loss against k, one line per mixer; None with fewer than two granularities.

    A mixer that ignores the view is a level line through all of them.
    """
    ks = sorted({row.k for row in rows if row.k is not None})
    if len(ks) < 2:
        return None
    traces: list[dict[str, Any]] = []
    for mixer in dict.fromkeys(row.mixer for row in rows):
        own = sorted((row for row in rows if row.mixer == mixer), key=lambda row: row.k or 0)
        color, name = colors[mixer], plain(mixer)
        flat = own[0].k is None
        losses = [own[0].final] * 2 if flat else [row.final for row in own]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines" if flat else "lines+markers",
                "name": name,
                "meta": mixer,
                "x": [ks[0], ks[-1]] if flat else [row.k for row in own],
                "y": rounded(loss.mean for loss in losses),
                "error_y": _error(losses),
                "line": {"color": color, "width": 2.2, "dash": "dash" if flat else "solid"},
                "marker": {"size": 8},
                "hovertemplate": f"<b>{name}</b><br>k = %{{x:,}}: %{{y:.3f}}<extra></extra>",
            }
        )
    axis = {"type": "log", "tickvals": ks, "ticktext": [f"{k:,}" for k in ks]}
    shown = padded_range(_extent(row.final for row in rows if math.isfinite(row.final.mean)))
    return {
        "data": traces,
        "layout": layout(
            "number of domains k",
            "final target loss, nats",
            xaxis=axis,
            yaxis={} if shown is None else {"range": shown},
        ),
    }


def outcome_chart(rows: Sequence[Row], colors: Colors) -> Figure | None:
    """Target loss against generic loss at the end of the run: down and to the left is better."""
    shown = [row for row in rows if math.isfinite(row.final.mean + row.generic.mean)]
    if len(shown) < 2:
        return None
    ks = sorted({row.k for row in shown if row.k is not None}, reverse=True)
    by_loss = sorted(shown, key=lambda row: -row.final.mean)
    named = {row.mixer: row for row in by_loss}.values()  # a mixer's name stands at its best point
    symbols = ("circle", "square", "diamond", "triangle-up", "cross", "x")
    traces = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": plain(row.label),
            "meta": row.label,
            "x": rounded([row.final.mean]),
            "y": rounded([row.generic.mean]),
            "error_x": _error([row.final]),
            "error_y": _error([row.generic]),
            "text": [plain(row.mixer) if row in named else ""],
            "textposition": "top center",
            "textfont": {"size": 11},
            "cliponaxis": False,
            "marker": {
                "color": colors[row.mixer],
                "size": 11,
                "symbol": symbols[0 if row.k is None else ks.index(row.k) % len(symbols)],
            },
            "hovertemplate": (
                f"<b>{plain(row.label)}</b><br>target %{{x:.3f}}<br>generic %{{y:.3f}}<extra></extra>"
            ),
        }
        for row in shown
    ]
    x, y = (
        {} if limits is None else {"range": limits}
        for limits in (
            padded_range(_extent(row.final for row in shown), 0.14),
            padded_range(_extent(row.generic for row in shown), 0.14),
        )
    )
    return {
        "data": traces,
        "layout": layout("final target loss, nats", "generic loss, nats", xaxis=x, yaxis=y),
    }


def _extent(spreads: Iterable[Spread]) -> list[float]:
    """Both ends of every error bar."""
    return [
        spread.mean + sign * (0.0 if math.isnan(spread.deviation) else spread.deviation)
        for spread in spreads
        for sign in (-1, 1)
    ]


def _error(spreads: Sequence[Spread]) -> dict[str, Any]:
    deviations = rounded(spread.deviation for spread in spreads)
    visible = any(deviation is not None for deviation in deviations)
    return {
        "type": "data",
        "array": [deviation or 0.0 for deviation in deviations],
        "visible": visible,
        "thickness": 1.2,
        "width": 3,
    }
