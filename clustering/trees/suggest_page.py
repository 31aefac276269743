"""The suggestion as one self-contained HTML page: three curves over k, the table, the reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from clustering.html_file import write_html
from clustering.trees.suggest import MAX_PASSES, STABLE, Granularity, Suggestion

WIDTH, HEIGHT, MARGIN = 360, 200, 34


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One chart, in the coordinates of its drawing."""

    title: str
    caption: str
    points: tuple[tuple[float, float, str], ...]
    """x, y and what to say there."""
    chosen: tuple[float, float] | None
    bound: float | None
    """y of the line that the curve should stay on one side of."""
    top: str
    """What the upper end of the axis is."""


def write_page(suggestion: Suggestion, num_vectors: int, path: Path) -> None:
    """Write the page to `path`; see `write_html`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = files("clustering.trees").joinpath("suggest_page.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        suggestion=suggestion,
        num_vectors=num_vectors,
        curves=_curves(suggestion),
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
    )
    write_html(page, path)


def _curves(suggestion: Suggestion) -> list[Curve]:
    curves = [
        _curve(
            suggestion,
            "Stability",
            "agreement of two trees, each from its own half of the sample (adjusted Rand index)",
            lambda row: row.stability,
            bound=STABLE,
        ),
        _curve(
            suggestion,
            "Variance explained",
            "share of the variance between domains, of documents that no tree has seen",
            lambda row: row.explained,
            bound=None,
        ),
    ]
    if suggestion.rows[0].passes is not None:
        curves.append(
            _curve(
                suggestion,
                "Passes",
                "over four median domains that get half of the training tokens",
                lambda row: min(row.passes or 0.0, 4.0 * MAX_PASSES),
                bound=MAX_PASSES,
                most=4.0 * MAX_PASSES,
            )
        )
    return curves


def _curve(
    suggestion: Suggestion,
    title: str,
    caption: str,
    value: Callable[[Granularity], float],
    *,
    bound: float | None,
    most: float = 1.0,
) -> Curve:
    last = math.log2(suggestion.rows[-1].k)

    def x(k: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (math.log2(k) - 1) / max(1.0, last - 1)

    def y(height: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * max(0.0, height) / most

    points = tuple(
        (x(row.k), y(value(row)), f"k = {row.k:,}: {value(row):.2f}") for row in suggestion.rows
    )
    chosen = next(
        (
            point[:2]
            for row, point in zip(suggestion.rows, points, strict=True)
            if row.k == suggestion.k
        ),
        None,
    )
    return Curve(
        title=title,
        caption=caption,
        points=points,
        chosen=chosen,
        bound=None if bound is None else y(bound),
        top=f"{most:g}",
    )
