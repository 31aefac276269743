"""Run folders read back, the table and its headline, and the report as a browser sees it."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import CHROMIUM, open_page
from tests.trainer.written_runs import STEPS, TARGETS, write_run, write_runs
from trainer.compare.grid import Cell, Grid
from trainer.mixers import PRESETS
from trainer.report.names import DomainNames
from trainer.report.report import render_report
from trainer.report.settings import (
    common_settings,
    differing_settings,
    make_notes,
    mixer_settings,
)
from trainer.report.style import MIXER_COLORS, mixer_colors
from trainer.results.headline import make_headlines
from trainer.results.results import DomainValues, ResultsError, Run, read_run, read_runs
from trainer.results.table import (
    COLUMNS,
    Spread,
    best_rows,
    comma_separated,
    make_rows,
    markdown,
    rows_of,
)

MIXERS = ("natural", "importance", "dga", "dga-paced")
NASTY = '</script><script>alert("1")</script><b>&\'`{{7*7}}'
DRAWN = "[...document.querySelectorAll('.plot[data-drawn=yes]')]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    out = tmp_path_factory.mktemp("runs")
    write_runs(out, Grid(mixers=MIXERS, ks=(8, 32), targets=TARGETS, seeds=(0, 1)))
    return read_runs(out)


@pytest.fixture(scope="module")
def page(runs: list[Run]) -> str:
    return render_report(
        runs, title=f"corpus {NASTY}", names_of=nasty_names, commands=[f"braidstream {NASTY}"]
    )


def nasty_names(k: int) -> DomainNames:
    return DomainNames(keywords={domain: (NASTY, f"word{domain}") for domain in range(k)})


# --- results -------------------------------------------------------------------------------------


def test_sparse_and_dense_weights_read_alike() -> None:
    dense = DomainValues.parse([0.1, 0.0, 0.9])
    sparse = DomainValues.parse({"index": [0, 2], "value": [0.1, 0.9]})
    assert dense is not None
    assert sparse is not None
    assert dense.dense(3).tolist() == sparse.dense(3).tolist() == [0.1, 0.0, 0.9]
    assert sparse.top(1) == [(2, 0.9)]
    assert DomainValues.parse(None) is None


def test_unfinished_run_has_metrics_and_no_result(tmp_path: Path) -> None:
    cell = Cell(mixer="dga", k=8, target="recipes", seed=0)
    folder = write_run(tmp_path, cell, done_steps=400)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event":"eval","st')
    run = read_run(folder)
    assert not run.finished
    assert run.unreadable_lines == 1
    assert run.evaluations.steps.tolist() == [100, 200, 300, 400]
    assert make_rows([run]) == []
    assert any(run.name in note for note in make_notes([run]))


def test_the_last_record_of_a_step_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Cell(mixer="natural", k=None, target=None, seed=0))
    again = {"event": "eval", "step": STEPS, "target_loss": {"recipes": None}, "generic_loss": 1.5}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    evaluations = read_run(folder).evaluations
    assert evaluations.steps.tolist() == sorted(set(evaluations.steps.tolist()))
    assert evaluations.generic_loss[-1] == 1.5
    assert math.isnan(evaluations.target_loss["recipes"][-1])


def test_damaged_config_says_what_to_do(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Cell(mixer="natural", k=None, target=None, seed=0))
    (folder / "config.json").write_text("{")
    with pytest.raises(ResultsError, match=r"natural-seed0.*again"):
        read_runs(tmp_path)


# --- table and headline --------------------------------------------------------------------------


def test_rows_average_over_seeds(runs: list[Run]) -> None:
    rows = make_rows(runs)
    assert [(row.mixer, row.k) for row in rows_of(rows, "recipes")] == [
        ("natural", None),
        *((mixer, k) for mixer in MIXERS[1:] for k in (8, 32)),
    ]
    row = next(row for row in rows_of(rows, "recipes") if (row.mixer, row.k) == ("dga", 32))
    finals = [
        run.evaluations.target_loss["recipes"][-1]
        for run in runs
        if (run.mixer, run.k, run.target) == ("dga", 32, "recipes")
    ]
    assert row.seeds == (0, 1)
    assert row.final.mean == pytest.approx(np.mean(finals))
    assert row.final.deviation == pytest.approx(abs(finals[0] - finals[1]) / math.sqrt(2))


def test_best_is_marked_per_target(runs: list[Run]) -> None:
    rows = rows_of(make_rows(runs), "medical_qa")
    final = next(column for column in COLUMNS if column.title == "final target loss")
    (best,) = best_rows(rows, final)
    assert rows[best].final.mean == min(row.final.mean for row in rows)
    assert f"**{rows[best].final.text()}**" in markdown(rows)


def test_overfitting_shows_as_a_best_before_the_end(runs: list[Run]) -> None:
    row = next(row for row in make_rows(runs) if row.mixer == "importance")
    assert row.best.mean < row.final.mean
    assert row.best_steps is not None
    assert row.best_steps[1] < STEPS


def test_csv_has_a_line_per_row(runs: list[Run]) -> None:
    rows = make_rows(runs)
    lines = comma_separated(rows).splitlines()
    assert len(lines) == 1 + len(rows)
    assert len({line.count(",") for line in lines}) == 1


def test_spread_of_one_seed_is_unknown() -> None:
    assert Spread.of([3.0]).text() == "3.000"
    assert Spread.of([3.0, 3.2]).text() == "3.100 ± 0.141"
    assert Spread.of([math.nan]).text() == "-"


def test_headline_measures_against_the_references(runs: list[Run]) -> None:
    headlines = make_headlines(make_rows(runs))
    assert [headline.target for headline in headlines] == list(TARGETS)
    for headline in headlines:
        assert headline.winner.mixer == "dga-paced"
        assert [margin.row.mixer for margin in headline.references] == ["natural", "importance"]
        for margin in headline.references:
            expected = margin.row.final.mean - headline.winner.final.mean
            assert margin.nats == pytest.approx(expected)
            assert not margin.within_spread
        assert "below natural" in headline.sentence()
        assert headline.second is not None
        assert headline.second.row.mixer == "dga"
        assert headline.second_is_news


def test_settings_that_differ_are_pointed_out(tmp_path: Path) -> None:
    write_run(tmp_path, Cell(mixer="natural", k=None, target=None, seed=0))
    write_run(tmp_path, Cell(mixer="natural", k=None, target=None, seed=1), steps=400)
    found = read_runs(tmp_path)
    assert differing_settings(found) == ["steps"]
    assert any("steps" in note for note in make_notes(found))


def test_what_mixers_do_not_read_is_no_difference(runs: list[Run], tmp_path: Path) -> None:
    assert make_notes(runs) == []
    listed = dict(mixer_settings(runs))
    assert listed["dga"] == "epsilon 5e-05, measured tokens 256, shrinkage none, step size 5"
    assert listed["natural"] == ""
    assert ("estimator", "difference") in common_settings(runs)
    for seed, shrinkage in enumerate(("none", "tree")):
        cell = Cell(mixer="dga", k=8, target="recipes", seed=seed)
        write_run(tmp_path, cell, shrinkage=shrinkage)
    assert differing_settings(read_runs(tmp_path)) == ["shrinkage"]


def test_a_reports_mixers_are_told_apart() -> None:
    varied = [f"dga+update_every={steps}" for steps in (5, 50, 500, 1, 2, 3, 4)]
    colors = mixer_colors(["dga", *varied, "natural"])
    assert len({colors[mixer] for mixer in ("dga", *varied, "natural")}) == 9
    assert colors["dga"] == MIXER_COLORS["dga"]
    assert set(PRESETS) <= set(MIXER_COLORS)


# --- the page ------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements of a page, and the text inside its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def figures_of(page: str) -> list[dict[str, Any]]:
    embedded = Elements(page).scripts[0]
    figures: list[dict[str, Any]] = json.loads(embedded)
    return figures


def test_page_loads_nothing(page: str) -> None:
    for tag, attributes in Elements(page).found:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page


def test_text_from_data_stays_text(page: str) -> None:
    elements = Elements(page)
    assert len(elements.scripts) == 3, "the figures, Plotly, the page's own script"
    assert not any("alert" in script for script in elements.scripts[2:])
    assert "<script>alert" not in page
    assert "{{7*7}}" in page, "data is no template"
    names = [trace.get("name", "") for figure in figures_of(page) for trace in figure["data"]]
    nasty = [name for name in names if "word" in name]
    assert nasty
    assert not any("<" in name for name in nasty)


def test_every_chart_is_there_and_valid(page: str) -> None:
    from plotly.graph_objects import Figure

    figures = figures_of(page)
    placed = [a for tag, a in Elements(page).found if tag == "div" and "data-figure" in a]
    assert len(placed) == len(figures)
    for figure in figures:
        Figure(figure)  # raises for anything that Plotly does not know
    for title in (
        "Target loss",
        "Generic loss",
        "Granularity",
        "Target against general ability",
        "Effective domains",
        "Repetition",
        "The mixture over time, k = 32",
        "Alignment scores, k = 8",
        "asked for",
    ):
        assert page.count(title) >= 2, f"{title} is there for both targets"


def test_area_shares_are_complete(page: str) -> None:
    areas = [f for f in figures_of(page) if f["data"] and f["data"][0].get("stackgroup")]
    assert areas
    for figure in areas:
        total = np.sum([trace["y"] for trace in figure["data"]], axis=0)
        np.testing.assert_allclose(total, 1.0, atol=1e-3)


def test_one_granularity_needs_no_chart_of_it(tmp_path: Path) -> None:
    write_runs(tmp_path, Grid(mixers=MIXERS, ks=(8,), targets=TARGETS[:1], seeds=(0,)))
    page = render_report(read_runs(tmp_path), title="one", names_of=lambda k: DomainNames())
    assert "<b>Granularity</b>" not in page
    assert "One seed: how much of this is chance is unknown." in page


def test_unfinished_runs_alone_make_a_page(tmp_path: Path) -> None:
    cell = Cell(mixer="natural", k=None, target=None, seed=0)
    write_run(tmp_path, cell, done_steps=200)
    page = render_report(read_runs(tmp_path), title="begun", names_of=lambda k: DomainNames())
    assert "There is no winner yet" in page
    assert "Unfinished" in page


def test_a_run_that_was_not_evaluated_yet_is_in_the_page(tmp_path: Path) -> None:
    for mixer, done in (("importance", STEPS), ("dga", 50)):
        write_run(tmp_path, Cell(mixer=mixer, k=8, target="recipes", seed=0), done_steps=done)
    page = render_report(read_runs(tmp_path), title="begun", names_of=lambda k: DomainNames())
    assert "Unfinished" in page
    assert "dga-k8-recipes-seed0" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium to draw the page")
def test_charts_draw_in_a_browser(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    with open_page(path, tmp_path / "profile") as tab:
        tab.until(f"{DRAWN}.length > 0 && {DRAWN}.every((plot) => plot.querySelector('.main-svg'))")
        assert tab.value(f"{DRAWN}.length < document.querySelectorAll('.plot').length")
        assert tab.complaints == [], "no script error, nothing that the page's policy refused"
    in_details = page[page.index("<details>") :].count("<details>")
    assert in_details > 0, "further seeds are folded away"
