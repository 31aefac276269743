"""A picture of what `benchmarks.sweeps` found: target loss over η, T_r, β, a row of panels per target.

    python -m benchmarks.sweeps_plot RUNS [--png PATH]

needs matplotlib; writes RUNS/sweeps.png. Solid is the loss at the end, dashed its lowest; horizontal
lines are the mixers of which nothing was varied, at the end.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.sweeps import Point, points, references
from trainer.report.style import Colors, mixer_colors
from trainer.results.results import read_runs
from trainer.results.table import Row, make_rows

SYMBOLS = {"step_size": "step size η", "update_every": "steps between updates T_r", "ema": "β"}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture: a column per setting, a row per target."""
    found = points(rows)
    settings = sorted(
        {point.setting for point in found}, key=lambda s: (s not in SYMBOLS, [*SYMBOLS, s].index(s))
    )
    targets = list(dict.fromkeys(point.row.target for point in found))
    figure, panels = plt.subplots(
        len(targets),
        len(settings),
        figsize=(4.2 * len(settings) + 1, 3.0 * len(targets) + 1),
        squeeze=False,
        sharex="col",
        sharey="row",
    )
    colors = mixer_colors(
        [point.mixer for point in found] + [row.mixer for row in references(rows)]
    )
    for across, setting in enumerate(settings):
        for down, target in enumerate(targets):
            _draw_panel(
                panels[down, across],
                [p for p in found if (p.setting, p.row.target) == (setting, target)],
                [row for row in references(rows) if row.target == target],
                colors,
            )
        panels[-1, across].set_xlabel(SYMBOLS.get(setting, setting))
    for down, target in enumerate(targets):
        panels[down, 0].set_ylabel(f"{target}\ntarget loss, nats")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 + 2 * len(settings))
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_panel(panel: Axes, found: Sequence[Point], others: Sequence[Row], colors: Colors) -> None:
    places: list[float | str] = list(dict.fromkeys(point.value for point in found))
    numbers = all(isinstance(place, float | int) and place > 0 for place in places)
    for row in others:
        if math.isfinite(row.final.mean):
            panel.axhline(row.final.mean, color=colors[row.mixer], linestyle=":", label=row.mixer)
    for mixer in dict.fromkeys(point.mixer for point in found):
        mine = [point for point in found if point.mixer == mixer]
        where = [point.value if numbers else places.index(point.value) for point in mine]
        color = colors[mixer]
        panel.errorbar(
            where,
            [point.row.final.mean for point in mine],
            yerr=[point.row.final.deviation for point in mine],
            color=color,
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=2,
            label=mixer,
        )
        panel.plot(where, [point.row.best.mean for point in mine], color=color, linestyle="--")
    if numbers:
        panel.set_xscale("log")
        panel.minorticks_off()
    panel.set_xticks(places if numbers else range(len(places)), [_text(place) for place in places])


def _text(place: float | str) -> str:
    return place if isinstance(place, str) else f"{place:g}"


def main() -> None:
    """Draw what there is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="what was given to benchmarks.sweeps as --out")
    parser.add_argument("--png", type=Path, help="default: RUNS/sweeps.png")
    options = parser.parse_args()
    rows = make_rows(read_runs(options.runs))
    path = options.png or options.runs / "sweeps.png"
    draw(rows, path)
    print(f"{path}: {len(points(rows))} points")


if __name__ == "__main__":
    main()
