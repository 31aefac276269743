"""Sweeps of a mixer's settings: which runs they take, and a small one that really trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sweeps import main, points, references, varied
from tests.trainer.written_runs import write_run
from trainer.compare.grid import Cell
from trainer.mixers import UnknownMixerError
from trainer.results.results import read_runs
from trainer.results.table import make_rows


def test_a_value_that_the_mixer_has_anyway_is_its_own_run() -> None:
    names = list(varied(["dga", "dga-ema"], ["step_size=1,5", "ema=0.1,1"]))
    assert names[:3] == ["dga", "dga+step_size=1", "dga+ema=0.1"]
    assert names[3:] == ["dga-ema", "dga-ema+step_size=1", "dga-ema+ema=1"]
    names = list(varied(["dga+shrinkage=tree"], ["half_life=25,100"]))
    assert names == ["dga+shrinkage=tree", "dga+shrinkage=tree+half_life=25"]
    with pytest.raises(UnknownMixerError, match="no setting=value"):
        list(varied(["dga"], ["eta=1"]))


def test_points_are_runs_that_differ_in_one_setting(tmp_path: Path) -> None:
    mixers = ["natural", "dga", "dga+step_size=25", "dga+step_size=1", "dga-paced+max_passes=none"]
    for mixer in [*mixers, "dga+ema=0.1+step_size=1"]:
        write_run(tmp_path, Cell(mixer=mixer, k=8, target="recipes", seed=0))
    rows = make_rows(read_runs(tmp_path))
    found = {(p.setting, p.mixer, p.value): p.row.mixer for p in points(rows)}
    assert found == {
        ("step_size", "dga", 1.0): "dga+step_size=1",
        ("step_size", "dga", 5.0): "dga",
        ("step_size", "dga", 25.0): "dga+step_size=25",
        ("step_size", "dga+ema=0.1", 1.0): "dga+ema=0.1+step_size=1",
        ("max_passes", "dga-paced", "none"): "dga-paced+max_passes=none",
    }
    assert [p.value for p in points(rows) if p.mixer == "dga"] == [1.0, 5.0, 25.0]
    assert [row.mixer for row in references(rows)] == ["natural"]


def test_a_sweep_trains_and_is_drawn(
    tiny_corpus: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "runs"
    command = [str(tiny_corpus), "--out", str(out), "--k", "3", "--targets", "alpha"]
    command += ["--mixers", "dga+update_every=2", "--references", "", "--sweep", "step_size=1,5"]
    command += ["--preset", "1m", "--batch-size", "4", "--steps", "4", "--eval-every", "4"]
    command += ["--eval-sequences", "8", "--device", "cpu", "--parallel", "2"]
    assert main(command) == 0
    assert sorted(run.name for run in read_runs(out)) == [
        "dga+update_every=2+step_size=1-k3-alpha-seed0",
        "dga+update_every=2-k3-alpha-seed0",
    ]
    assert "| dga+update_every=2+step_size=1 | 3 |" in capfd.readouterr().out
    pytest.importorskip("matplotlib")
    from benchmarks.sweeps_plot import draw

    draw(make_rows(read_runs(out)), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
