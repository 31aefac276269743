"""A picture of each claim's sweep: a PNG for documents, and an HTML page with the same curves.

    python -m benchmarks.claims_plot RUNS

needs matplotlib and plotly; writes RUNS/claim-tokens.* and RUNS/claim-examples.* for what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, ScalarFormatter
from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from benchmarks.claims import rows_of
from trainer.report.style import mixer_colors
from trainer.results.table import Row


class Quantity(NamedTuple):
    """What one row of panels shows."""

    title: str
    field: str
    """Of `Row`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """How a sweep is drawn."""

    axis: str
    quantities: tuple[Quantity, Quantity]


CLAIMS = {
    "tokens": Claim(
        axis="tokens per domain",
        quantities=(
            Quantity("target loss, nats: at the end, and its lowest (dashed)", "final"),
            Quantity("passes over the most repeated domain", "passes"),
        ),
    ),
    "examples": Claim(
        axis="examples of the target",
        quantities=(
            Quantity("target loss, nats: at the end, and its lowest (dashed)", "final"),
            Quantity("domains in use at the end, exp(entropy)", "effective_domains"),
        ),
    ),
}


class Curve(NamedTuple):
    """One line of one panel."""

    panel: tuple[int, int]
    """Row and column, from 0."""
    mixer: str
    values: list[str]
    """Of the sweep."""
    heights: list[float]
    spreads: list[float]
    dashed: bool


def curves(claim: Claim, rows: list[tuple[str, Row]]) -> Iterator[Curve]:
    """All lines: a column of panels per target, a row of them per quantity."""
    for column, target in enumerate(dict.fromkeys(row.target for _, row in rows)):
        for mixer in dict.fromkeys(row.mixer for _, row in rows):
            mine = [
                (value, row) for value, row in rows if (row.target, row.mixer) == (target, mixer)
            ]
            values = [value for value, _ in mine]
            for number, quantity in enumerate(claim.quantities):
                for field in (quantity.field, "best") if number == 0 else (quantity.field,):
                    spreads = [getattr(row, field) for _, row in mine]
                    yield Curve(
                        panel=(number, column),
                        mixer=mixer,
                        values=values,
                        heights=[spread.mean for spread in spreads],
                        spreads=[spread.deviation for spread in spreads],
                        dashed=field == "best",
                    )


def draw_png(claim: Claim, rows: list[tuple[str, Row]], path: Path) -> None:
    """Write the static picture."""
    targets = list(dict.fromkeys(row.target for _, row in rows))
    places = list(dict.fromkeys(value for value, _ in rows))
    figure, panels = plt.subplots(
        2, len(targets), figsize=(4.2 * len(targets) + 1, 7), squeeze=False, sharex=True
    )
    colors = mixer_colors(row.mixer for _, row in rows)
    for curve in curves(claim, rows):
        panels[curve.panel].errorbar(
            [places.index(value) for value in curve.values],
            curve.heights,
            yerr=None if curve.dashed else curve.spreads,
            color=colors[curve.mixer],
            linestyle="--" if curve.dashed else "-",
            linewidth=1 if curve.dashed else 2,
            marker=None if curve.dashed else "o",
            markersize=4,
            capsize=2,
            label=None if curve.dashed else curve.mixer,
        )
    for column, target in enumerate(targets):
        panels[0, column].set_title(target)
        panels[1, column].set_xlabel(claim.axis)
        panels[1, column].set_xticks(range(len(places)), places)
        panels[1, column].set_yscale("log")
        panels[1, column].yaxis.set_major_formatter(ScalarFormatter())
        panels[1, column].yaxis.set_minor_formatter(NullFormatter())
    for number, quantity in enumerate(claim.quantities):
        panels[number, 0].set_ylabel(quantity.title.replace(": ", ":\n").replace(", exp", ",\nexp"))
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=1 + 2 * len(targets),
    )
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_html(claim: Claim, rows: list[tuple[str, Row]], path: Path) -> None:
    """Write the page, which needs no other file."""
    targets = list(dict.fromkeys(row.target for _, row in rows))
    titles = [f"{target}: {quantity.title}" for quantity in claim.quantities for target in targets]
    figure: Figure = make_subplots(rows=2, cols=len(targets), subplot_titles=titles)
    colors = mixer_colors(row.mixer for _, row in rows)
    for curve in curves(claim, rows):
        color = colors[curve.mixer]
        line = {"color": color, "dash": "dash" if curve.dashed else "solid"}
        figure.add_trace(
            Scatter(
                x=curve.values,
                y=curve.heights,
                error_y={"array": curve.spreads, "visible": not curve.dashed},
                name=f"{curve.mixer}, lowest" if curve.dashed else curve.mixer,
                legendgroup=curve.mixer,
                showlegend=curve.panel == (0, 0),
                line=line,
            ),
            row=curve.panel[0] + 1,
            col=curve.panel[1] + 1,
        )
    places = list(dict.fromkeys(value for value, _ in rows))
    figure.update_xaxes(
        title_text=claim.axis, type="category", categoryorder="array", categoryarray=places
    )
    figure.update_yaxes(type="log", row=2)
    figure.update_layout(height=800, template="plotly_white")
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    """Draw what there is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="what was given to benchmarks.claims as --out")
    folder = parser.parse_args().runs
    for name, claim in CLAIMS.items():
        rows = list(rows_of(folder / name)) if (folder / name).is_dir() else []
        if rows:
            draw_png(claim, rows, folder / f"claim-{name}.png")
            draw_html(claim, rows, folder / f"claim-{name}.html")
            print(f"{folder / f'claim-{name}'}.png and .html: {len(rows)} rows")


if __name__ == "__main__":
    main()
