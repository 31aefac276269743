"""The report of a comparison: one HTML file that needs nothing else, not even a network.

Plotly's JavaScript is inside the page, and the page's own content security policy forbids the browser to
load anything from anywhere or to run any script but the two that are named by their hashes. Text from
data is escaped by the template, by `style.plain` inside charts, and by `_embed` inside scripts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

from trainer.report.names import NamesOf
from trainer.report.sections import make_section
from trainer.report.settings import common_settings, make_notes, mixer_settings
from trainer.report.style import Figure, mixer_colors
from trainer.results.headline import make_headlines
from trainer.results.results import Run
from trainer.results.table import COLUMNS, make_rows, targets_of


def render_report(
    runs: Sequence[Run], *, title: str, names_of: NamesOf, commands: Sequence[str] = ()
) -> str:
    """The page as HTML. `commands` are the command lines that made the runs, for the record."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    rows = make_rows(runs)
    figures: list[Figure] = []

    def place(figure: Figure) -> int:
        """Number under which the page's script finds `figure`."""
        figures.append(figure)
        return len(figures) - 1

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    colors = mixer_colors(run.mixer for run in runs)
    environment.filters["color"] = colors.__getitem__
    scripts = [get_plotlyjs(), _asset("page.js")]
    return environment.from_string(_asset("page.html.j2")).render(
        title=title,
        runs=runs,
        headlines=make_headlines(rows),
        sections=[
            make_section(runs, rows, target, names_of, colors) for target in targets_of(runs)
        ],
        columns=[column.title for column in COLUMNS],
        settings=common_settings(runs),
        mixer_settings=mixer_settings(runs),
        notes=make_notes(runs),
        commands=commands,
        place=place,
        figures=lambda: Markup(_embed(figures)),
        style=Markup(_asset("page.css")),  # these three are ours: nothing to escape
        scripts=[Markup(script) for script in scripts],
        script_hashes=[_digest(script) for script in scripts],
    )


def _embed(figures: Sequence[Figure]) -> str:
    """JSON that can stand inside a script element: nothing in it can close the element."""
    text = json.dumps(figures, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("trainer.report") / name).read_text(encoding="utf-8")
