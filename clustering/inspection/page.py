"""The inspection of a corpus as one self-contained HTML page.

The domains travel as JSON inside the page; its scripts draw what is looked at, so that 4,096 domains open as
quickly as 16. Everything is inlined, and the page forbids itself any request: a content security policy
allows no source but the inlined scripts, named by their hashes. Documents are foreign text: Jinja escapes it,
and the scripts set it as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from clustering.html_file import write_html
from clustering.inspection.centroid_map import lay_out, view_centroids
from clustering.inspection.domain_facts import Domain, Example, Inspection

SCRIPTS = ("nodes.js", "maps.js", "page.js")


def write_page(inspection: Inspection, path: Path) -> None:
    """Write the page to `path`; see `write_html`."""
    write_html(render_page(inspection), path)


def render_page(inspection: Inspection) -> str:
    """The page as HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["compact"] = compact
    scripts = [_asset(name) for name in SCRIPTS]
    return environment.from_string(_asset("page.html.j2")).render(
        inspection=inspection,
        corpus=inspection.corpus,
        manifest=inspection.corpus.manifest,
        name=inspection.corpus.name,
        data=Markup(_embed(page_data(inspection))),
        style=Markup(_asset("page.css")),  # ours, like the scripts: nothing to escape
        scripts=[Markup(script) for script in scripts],
        script_hashes=[_digest(script) for script in scripts],
    )


def page_data(inspection: Inspection) -> dict[str, Any]:
    """What the scripts show: per layer its domains, the finest ones with their place on the map."""
    sources: dict[str, int] = {}

    def source(name: str) -> int:
        return sources.setdefault(name, len(sources))

    def example(row: Example) -> list[Any]:
        return [row.text, source(row.source), round(row.distance, 2)]

    def facts(domain: Domain) -> dict[str, Any]:
        return {
            "parent": domain.parent,
            "leaves": domain.leaves,
            "documents": domain.documents,
            "tokens": domain.tokens,
            "samples": domain.samples,
            "duplicates": domain.duplicate_share,
            "keywords": domain.keywords,
            "languages": [[row.name, round(row.share, 3)] for row in domain.languages[:3]],
            "scripts": [[row.name, round(row.share, 3)] for row in domain.scripts[:3]],
            "sources": [[source(row.name), round(row.share, 3)] for row in domain.sources],
            "nearest": [[row.index, round(row.cosine, 2)] for row in domain.neighbors],
            "examples": [example(row) for row in domain.examples],
            "farthest": example(domain.farthest) if domain.farthest else None,
        }

    layers: list[dict[str, Any]] = [
        {"name": layer.balance.name, "domains": [facts(domain) for domain in layer.domains]}
        for layer in inspection.layers
        if layer.domains
    ]
    if layers and inspection.corpus.manifest.tree.centroids:
        places = lay_out(view_centroids(inspection.corpus, k=inspection.finest.balance.k))
        for domain, place in zip(layers[-1]["domains"], places.round(4).tolist(), strict=True):
            domain["place"] = place
    return {
        "name": inspection.corpus.name,
        "sources": list(sources),
        "layers": layers,
    }


def compact(value: float) -> str:
    """A count that fits a small place: 950, 12.3k, 4.6M, 1.2B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}"


def _embed(data: dict[str, Any]) -> str:
    """JSON that can stand inside a script element: nothing in it can close the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("clustering.inspection") / name).read_text(encoding="utf-8")
