"""The inspection of a corpus as one self-contained HTML page.

Everything is inlined, and the page forbids itself any request: a content security policy allows no
source but the inlined script, named by its hash. Documents are foreign text, so Jinja escapes all of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from clustering.domain_facts import Domain, Inspection
from clustering.treemap import Rectangle, squarify

MAX_TILES = 1_024
"""The map shows the finest layer of at most this many domains; smaller tiles are not readable."""
MAP = Rectangle(x=0, y=0, width=100, height=100)
MAP_SHAPE = 2.4
"""Width of the map over its height: tiles are squarified in this shape, then placed in per cent."""
DISTINCT_HUES = 12
GOLDEN_ANGLE = 137.508


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One domain on the map, in per cent of its width and height."""

    domain: Domain
    layer: int
    left: float
    top: float
    width: float
    height: float


def write_page(inspection: Inspection, path: Path) -> None:
    """Write the page to `path`, making its folder when there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(inspection), encoding="utf-8")


def render_page(inspection: Inspection) -> str:
    """The page as HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["compact"] = compact
    environment.filters["hue"] = lambda top: round(hue(top, inspection.layers[0].balance.k), 1)
    script = _asset("inspect_page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_asset("inspect_page.html.j2")).render(
        inspection=inspection,
        corpus=inspection.corpus,
        manifest=inspection.corpus.manifest,
        name=inspection.corpus.path.resolve().name,
        children=_children(inspection),
        tiles=tiles(inspection),
        style=Markup(_asset("inspect_page.css")),  # ours, not the corpus': nothing to escape
        script=Markup(script),
        script_hash=digest,
    )


def tiles(inspection: Inspection) -> list[Tile]:
    """The map: the first layer squarified, and the finest readable layer inside it."""
    readable = [
        i for i, layer in enumerate(inspection.layers) if 0 < len(layer.domains) <= MAX_TILES
    ]
    if not readable:
        return []
    finest = readable[-1]
    groups = inspection.layers[0].domains
    shape = Rectangle(x=0, y=0, width=MAP.width * MAP_SHAPE, height=MAP.height)
    areas = squarify([group.samples for group in groups], shape)
    placed: list[Tile] = []
    for group, area in zip(groups, areas, strict=True):
        members = [
            domain for domain in inspection.layers[finest].domains if domain.top == group.index
        ]
        inner = squarify([member.samples for member in members], area)
        placed.extend(
            Tile(
                domain=member,
                layer=finest,
                left=round(box.x / MAP_SHAPE, 3),
                top=round(box.y, 3),
                width=round(box.width / MAP_SHAPE, 3),
                height=round(box.height, 3),
            )
            for member, box in zip(members, inner, strict=True)
            if member.samples
        )
    return placed


def hue(top: int, count: int) -> float:
    """A hue (degrees) for a domain of the first layer: evenly spaced, or by the golden angle when many."""
    if count <= DISTINCT_HUES:
        return (25 + 360 * top / count) % 360
    return (25 + GOLDEN_ANGLE * top) % 360


def compact(value: float) -> str:
    """A count that fits a small place: 950, 12.3k, 4.6M, 1.2G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}"


def _children(inspection: Inspection) -> dict[tuple[int, int], list[Domain]]:
    """(layer, index) of a domain to its domains in the next layer."""
    found: dict[tuple[int, int], list[Domain]] = defaultdict(list)
    for number, layer in enumerate(inspection.layers):
        for domain in layer.domains:
            if domain.parent is not None:
                found[number - 1, domain.parent].append(domain)
    return found


def _asset(name: str) -> str:
    return (files("clustering") / name).read_text(encoding="utf-8")
