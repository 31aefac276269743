"""Squarified tree map: rectangles of given areas, as near to squares as a greedy layout gets them.

Source: M. Bruls, K. Huizing, J. van Wijk, "Squarified Treemaps" (2000). Pure arithmetic, no drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rectangle:
    """A rectangle in the units of the area that was divided; the origin is the upper left corner."""

    x: float
    y: float
    width: float
    height: float


def squarify(sizes: Sequence[float], area: Rectangle) -> list[Rectangle]:
    """Divide `area` in proportion to `sizes`; the result is in the order of `sizes`.

    A size of zero gives a rectangle without area. Raises `ValueError` on a negative size.
    """
    if any(size < 0 for size in sizes):
        raise ValueError(f"sizes must not be negative, found {min(sizes)}.")
    total = sum(sizes)
    placed = [Rectangle(x=area.x, y=area.y, width=0.0, height=0.0)] * len(sizes)
    if total == 0:
        return placed
    scale = area.width * area.height / total
    order = sorted((i for i in range(len(sizes)) if sizes[i] > 0), key=lambda i: -sizes[i])
    rest = area
    while order:
        side = min(rest.width, rest.height)
        count = 1
        while count < len(order) and _worst(sizes, order[: count + 1], scale, side) <= _worst(
            sizes, order[:count], scale, side
        ):
            count += 1
        row, order = order[:count], order[count:]
        rest = _place(row, [sizes[i] * scale for i in row], rest, placed)
    return placed


def _worst(sizes: Sequence[float], row: Sequence[int], scale: float, side: float) -> float:
    """The largest aspect ratio in a row that is laid along `side`."""
    areas = [sizes[i] * scale for i in row]
    thickness = sum(areas) / side
    lengths = [area / thickness for area in areas]
    return max(max(length / thickness, thickness / length) for length in lengths)


def _place(
    row: Sequence[int], areas: Sequence[float], rest: Rectangle, placed: list[Rectangle]
) -> Rectangle:
    """Lay `row` along the shorter side of `rest` into `placed`; return what remains of `rest`."""
    upright = rest.width >= rest.height
    thickness = sum(areas) / (rest.height if upright else rest.width)
    offset = 0.0
    for i, area in zip(row, areas, strict=True):
        length = area / thickness
        if upright:
            placed[i] = Rectangle(x=rest.x, y=rest.y + offset, width=thickness, height=length)
        else:
            placed[i] = Rectangle(x=rest.x + offset, y=rest.y, width=length, height=thickness)
        offset += length
    if upright:
        left = max(rest.width - thickness, 0.0)
        return Rectangle(x=rest.x + thickness, y=rest.y, width=left, height=rest.height)
    left = max(rest.height - thickness, 0.0)
    return Rectangle(x=rest.x, y=rest.y + thickness, width=rest.width, height=left)
