"""How the report's charts look: one color per mixer, one dash per granularity, plain axes.

A figure is a plain dict in Plotly's JSON form ({"data", "layout"}); the tests check every one against
Plotly's own schema. Plotly reads a subset of HTML in names and hovers, so text that comes from data
passes through `plain`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.results.table import Key

Figure = dict[str, Any]
Colors = Mapping[str, str]
"""`#rrggbb` of each mixer of a report, and of all presets."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
"""The page's."""

MIXER_COLORS = {
    "natural": "#7b8794",
    "uniform": "#b99b6b",
    "importance": "#e69f00",
    "importance-ratio": "#f2c14e",
    "importance-paced": "#d55e00",
    "importance-fading": "#a6761d",
    "importance-general": "#6b6ecf",
    "dga": "#0072b2",
    "dga-ema": "#56b4e9",
    "dga-distributions": "#17a2a8",
    "dga-paced": "#009e73",
    "dga-paced-general": "#7a4fb5",
    "doge": "#a3b535",
    "odm": "#b85c8a",
    "schedule": "#444b54",
}
"""The first eight after Okabe and Ito: told apart with any color vision."""
OTHER_COLORS = ("#cc79a7", "#8c564b", "#2b8c4b", "#5b6b1f", "#3f51b5", "#c0392b")
DOMAIN_COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#7a4fb5",
    "#a3b535",
    "#8c564b",
    "#17a2a8",
)
REST_COLOR = "#d9dee4"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def mixer_colors(mixers: Iterable[str]) -> Colors:
    """The colors of a report's mixers: presets have theirs in every report, others by their place in it.

    Where `OTHER_COLORS` run out, those of presets that are not there follow.
    """
    names = dict.fromkeys(mixers)
    free = [*OTHER_COLORS, *(c for preset, c in MIXER_COLORS.items() if preset not in names)]
    others = [name for name in names if name not in MIXER_COLORS]
    return MIXER_COLORS | {name: free[i % len(free)] for i, name in enumerate(others)}


def dash_of(key: Key, keys: Iterable[Key]) -> str:
    """The dash of a granularity: solid for the finest, and for what has none."""
    ks = sorted({k for _, k in keys if k is not None}, reverse=True)
    return "solid" if key[1] is None else DASHES[ks.index(key[1]) % len(DASHES)]


def translucent(color: str, opacity: float) -> str:
    """`#rrggbb` as an rgba() color."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def plain(text: str) -> str:
    """Text from data, so that Plotly shows it instead of reading tags in it."""
    return html.escape(text, quote=False)


def rounded(values: Iterable[float]) -> list[float | None]:
    """Five significant digits (the page stays small); what is not finite becomes a gap."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    """The common layout; `more` adds to it, to single axes with `xaxis` and `yaxis`.

    Colors of text and grid are missing: the page's script sets them for its light or dark theme.
    """
    axis = {"zeroline": False, "ticks": "outside", "automargin": True}
    return {
        "font": {"family": FONT, "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 10, "b": 44},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        **more,
        "xaxis": axis | {"title": {"text": x}} | more.get("xaxis", {}),
        "yaxis": axis | {"title": {"text": y}} | more.get("yaxis", {}),
    }


def visible_range(curves: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[float] | None:
    """A y range that shows the whole run except its first tenth, where every loss falls from the sky.

    None (let Plotly choose) where too little was recorded to leave anything out.
    """
    last_step = max((max(steps) for steps, _ in curves if len(steps)), default=0)
    kept = [
        value
        for steps, values in curves
        for step, value in zip(steps, values, strict=True)
        if step >= 0.1 * last_step and math.isfinite(value)
    ]
    return padded_range(kept)


def padded_range(values: Sequence[float], air: float = 0.06) -> list[float] | None:
    """From the lowest to the highest value, with a share of that as `air` on both sides.

    None where all values are the same.
    """
    if not values or min(values) == max(values):
        return None
    margin = air * (max(values) - min(values))
    return [float(f"{x:.5g}") for x in (min(values) - margin, max(values) + margin)]
