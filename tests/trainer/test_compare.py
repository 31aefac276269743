"""The grid, and comparisons that really train: tiny models, a few steps, one process per run."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import Corpus, MixtureError, open_corpus
from trainer.compare.compare import CellRun, Job, State, run_cells
from trainer.compare.display import PlainDisplay
from trainer.compare.grid import Cell, Grid, GridError, parse_grid
from trainer.compare.tail import MetricsTail, end_of_log
from trainer.compare_command import TrainingOptions, main, prepare_runs
from trainer.results.results import read_runs
from trainer.run.config import ConfigError, TrainConfig
from trainer.run.folder_lock import FolderLock
from trainer.run.run_folder import RunFolderError

TINY = shlex.split(
    "--preset 1m --batch-size 4 --steps 4 --eval-every 2 --eval-sequences 8 --device cpu"
)


@pytest.fixture(autouse=True)
def _one_thread_per_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


# --- the grid ------------------------------------------------------------------------------------


def test_runs_that_depend_on_less_are_shared() -> None:
    grid = Grid(
        mixers=("natural", "uniform", "importance", "dga"),
        ks=(3, 12),
        targets=("alpha", "beta"),
        seeds=(0, 1),
    )
    cells = grid.cells()
    per_seed = 1 + 2 + 2 * 4  # natural once, uniform per k, the other two per k and target
    assert len(cells) == len({cell.name for cell in cells}) == 2 * per_seed
    assert {cell.seed for cell in cells[:per_seed]} == {0}, "the first seed is a whole comparison"


def test_names_of_cells_are_stable() -> None:
    assert Cell(mixer="natural", k=None, target=None, seed=0).name == "natural-seed0"
    assert Cell(mixer="uniform", k=64, target=None, seed=1).name == "uniform-k64-seed1"
    assert Cell(mixer="dga", k=8, target="recipes", seed=2).name == "dga-k8-recipes-seed2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixers": "natural,magic"}, r"no magic; choose from natural, uniform.*dga-paced"),
        ({"targets": "gamma"}, r"no gamma; choose from alpha, beta"),
        ({"ks": "3,13"}, r"13 is no whole number from 1 to 12; the levels .* 1, 3, 12"),
        ({"ks": "all"}, r"all is no whole number"),
        ({"seeds": "-1"}, r"-1 is no whole number"),
        ({"mixers": " , "}, r"lists nothing"),
    ],
)
def test_what_does_not_exist_is_refused(
    tiny_corpus: Path, changes: dict[str, str], message: str
) -> None:
    given = {"mixers": "natural", "ks": "3", "targets": "alpha", "seeds": "0"} | changes
    with pytest.raises(GridError, match=message):
        parse_grid(open_corpus(tiny_corpus), **given)


def test_defaults_come_from_the_corpus(corpus: Corpus) -> None:
    grid = parse_grid(corpus, mixers="dga,dga", ks="", targets="", seeds="0,1")
    assert grid == Grid(mixers=("dga",), ks=(3,), targets=("alpha", "beta"), seeds=(0, 1))


def test_command_says_only_what_is_not_default(tmp_path: Path) -> None:
    job = Job(
        cell=Cell(mixer="dga", k=8, target="recipes", seed=0),
        config=TrainConfig(mixer="dga", k=8, target="recipes", learning_rate=0.002),
        corpus=tmp_path / "corpus",
        version=1,
        folder=tmp_path / "run",
    )
    options = " ".join(job.command()[7:])
    assert options == f"{tmp_path / 'run'} --target recipes --mixer dga --k 8 --learning-rate 0.002"


def test_a_setting_goes_to_the_mixers_that_use_it(corpus: Corpus, tmp_path: Path) -> None:
    def prepared(mixers: str) -> dict[str, TrainConfig]:
        grid = parse_grid(corpus, mixers=mixers, ks="3", targets="alpha", seeds="0")
        training = TrainingOptions(step_size=2.0, preset="1m", device="cpu")
        runs = prepare_runs(corpus, grid, training, tmp_path)
        return {run.job.cell.mixer: run.job.config for run in runs}

    configs = prepared("natural,dga,dga+shrinkage=tree")
    assert {name: config.step_size for name, config in configs.items()} == {
        "natural": None,
        "dga": 2.0,
        "dga+shrinkage=tree": 2.0,
    }
    with pytest.raises(
        ConfigError, match="step_size changes nothing in the mixer 'natural, uniform'"
    ):
        prepared("natural,uniform")


def test_a_basis_and_a_file_of_weights_go_to_the_mixers_that_read_them(
    corpus: Corpus, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.jsonl"
    plan.write_text('{"step": 0, "weights": [1, 1, 2]}\n', encoding="utf-8")

    def prepared(mixers: str) -> dict[str, tuple[tuple[str, ...], str | None]]:
        grid = parse_grid(corpus, mixers=mixers, ks="3", targets="alpha", seeds="0")
        training = TrainingOptions(basis=("beta",), weights_file=str(plan), device="cpu")
        jobs = [run.job for run in prepare_runs(corpus, grid, training, tmp_path)]
        return {job.cell.mixer: (job.config.basis, job.config.weights_file) for job in jobs}

    assert prepared("natural,dga-distributions,schedule") == {
        "natural": ((), None),
        "dga-distributions": (("beta",), None),
        "schedule": ((), str(plan)),
    }
    with pytest.raises(ConfigError, match=r"weights_file changes nothing .*belongs to schedule"):
        prepared("natural,dga-distributions")
    plan.write_text('{"step": 0, "weights": [1, 1]}\n', encoding="utf-8")
    with pytest.raises(MixtureError, match=r"plan.jsonl:1 is no line of a schedule over 3 domains"):
        prepared("schedule,dga-distributions")


def test_a_seed_is_a_number_that_generators_take() -> None:
    for seed in (-1, 2**32):
        with pytest.raises(ConfigError, match=f"seed={seed} must be between 0 and 4294967295"):
            TrainConfig(seed=seed)


def test_a_setting_that_makes_a_mixer_steer_towards_a_target_belongs_into_names(
    corpus: Corpus, tmp_path: Path
) -> None:
    grid = Grid(mixers=("natural", "importance"), ks=(3,), targets=("alpha",), seeds=(0,))
    training = TrainingOptions(importance_share=0.3)
    with pytest.raises(ConfigError, match=r"'natural' would .* with importance_share, and it runs"):
        prepare_runs(corpus, grid, training, tmp_path)
    named = Grid(mixers=("natural+importance_share=0.3",), ks=(3,), targets=("alpha",), seeds=(0,))
    (run,) = prepare_runs(corpus, named, TrainingOptions(), tmp_path)
    assert run.job.config.target == "alpha"


# --- following a run -----------------------------------------------------------------------------


def test_tail_follows_growth_and_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    tail.read()
    assert tail.step == 0
    path.write_text('{"event":"train","step":20}\n{"event":"train","st')
    tail.read()
    assert tail.step == 20
    with path.open("a") as file:
        file.write('ep":40}\n{"event":"eval","step":40,"target_loss":{"a":2.5},"generic_loss":3}\n')
    tail.read()
    assert (tail.step, tail.target_loss, tail.generic_loss) == (40, {"a": 2.5}, 3)
    path.write_text('{"event":"train","step":20}\n')
    tail.read()
    assert tail.step == 20


def test_end_of_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert "(nothing)" in end_of_log(log)
    log.write_text("".join(f"line {i}\n" for i in range(100)))
    assert end_of_log(log).splitlines()[-1] == "    line 99"
    assert "line 10\n" not in end_of_log(log)


# --- real runs -----------------------------------------------------------------------------------


def test_comparison_from_nothing_to_report(
    tiny_corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Train a grid, skip what is done, extend it, report again, retry a failed run."""
    command = [str(tiny_corpus), "--out", str(tmp_path), "--k", "3", "--targets", "alpha,beta"]
    first = [*command, "--mixers", "natural,importance", "--parallel", "2", *TINY]
    assert main(first) == 0
    runs = {run.name: run for run in read_runs(tmp_path)}
    assert sorted(runs) == [
        "importance-k3-alpha-seed0",
        "importance-k3-beta-seed0",
        "natural-seed0",
    ]
    assert all(run.finished for run in runs.values())
    assert runs["natural-seed0"].targets() == ("alpha", "beta")
    assert "finished: 4 steps" in (tmp_path / "natural-seed0" / "log.txt").read_text()
    output = capfd.readouterr().out
    assert "3 runs in" in output
    assert "natural-seed0: done" in output
    assert f"report: {tmp_path / 'report.html'}" in output
    assert "wins with" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "results.md").read_text().count("| importance | 3 |") == 2
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 5

    # The same again runs nothing; another granularity runs only what depends on it.
    written = {name: (tmp_path / name / "result.json").stat().st_mtime_ns for name in runs}
    assert main(first) == 0
    assert "3 done before" in capfd.readouterr().out
    assert main([*first, "--k", "3,12", "--targets", "alpha"]) == 0
    assert "2 done before" in capfd.readouterr().out
    assert (tmp_path / "importance-k12-alpha-seed0" / "result.json").exists()
    for name, before in written.items():
        assert (tmp_path / name / "result.json").stat().st_mtime_ns == before
    assert "<b>Granularity</b>" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "commands.txt").read_text().splitlines()) == 2

    # Other settings do not fit into the same folder, and nothing runs.
    with pytest.raises(RunFolderError, match="steps"):
        main([*first, "--steps", "6"])

    # A run that fails is reported, stops no other, and is tried again.
    broken = tmp_path / "importance-k3-beta-seed0"
    (broken / "result.json").unlink()
    for saved in (broken / "checkpoints").rglob("*.*"):
        if saved.is_file():
            saved.write_bytes(b"damaged")
    shutil.rmtree(tmp_path / "natural-seed0")
    assert main(first) == 1
    captured = capfd.readouterr()
    assert "importance-k3-beta-seed0 failed (exit code" in captured.err
    assert "natural-seed0: done" in captured.out
    shutil.rmtree(broken / "checkpoints")
    (broken / "metrics.jsonl").unlink()
    assert main(first) == 0

    # The report alone, from the folder.
    (tmp_path / "report.html").unlink()
    assert main([str(tiny_corpus), "--out", str(tmp_path), "--report-only"]) == 0
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_running_cells(
    tiny_corpus: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "trainer.compare_command", str(tiny_corpus)]
    options = ["--out", str(tmp_path), "--mixers", "natural,uniform", *TINY, "--log-every", "1"]
    process = subprocess.Popen(
        [*command, *options, "--steps", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
    )
    try:
        tail = MetricsTail(tmp_path / "natural-seed0" / "metrics.jsonl")
        deadline = time.monotonic() + 120
        while tail.step < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
            tail.read()
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "the same command continues" in output
    assert not (tmp_path / "uniform-k3-seed0").exists(), "nothing new is started"
    (saved,) = (tmp_path / "natural-seed0" / "checkpoints").iterdir()
    assert saved.name.startswith("step-")
    assert not (tmp_path / "natural-seed0" / "result.json").exists()


def test_a_folder_of_something_else_is_no_place_for_a_comparison(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("mine")
    options = ["--out", str(tmp_path), "--mixers", "natural", *TINY]
    with pytest.raises(RunFolderError, match=r"holds 'report\.html', and no run"):
        main([str(tiny_corpus), *options])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_that_another_process_trains_is_waited_for(tiny_corpus: Path, tmp_path: Path) -> None:
    """Such as one whose comparison was killed."""
    corpus = open_corpus(tiny_corpus)
    grid = parse_grid(corpus, mixers="natural,uniform", ks="3", targets="alpha", seeds="0")
    training = TrainingOptions(preset="1m", batch_size=4, steps=2, eval_sequences=4, device="cpu")
    runs = prepare_runs(corpus, grid, training, tmp_path)
    lock = FolderLock(runs[0].job.folder)
    runs[0].job.folder.mkdir()
    assert lock.take()
    seen = []

    class Watching(PlainDisplay):
        def changed(self, run: CellRun) -> None:
            super().changed(run)
            seen.append((run.job.cell.mixer, run.state))
            if run.state is State.DONE:
                lock.release()

    assert run_cells(runs, parallel=2, display=Watching(Console(), total=2)) == 0
    assert seen == [
        ("natural", State.ELSEWHERE),
        ("uniform", State.RUNNING),
        ("uniform", State.DONE),
        ("natural", State.RUNNING),
        ("natural", State.DONE),
    ]


def test_no_runs_to_report_is_an_error(tiny_corpus: Path, tmp_path: Path) -> None:
    from pipeline import BraidstreamError

    with pytest.raises(BraidstreamError, match="there are no runs"):
        main([str(tiny_corpus), "--out", str(tmp_path), "--report-only"])


def test_help_explains_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--mixers", "--k ", "--targets", "--seeds", "--parallel", "--report-only"):
        assert option in text
    assert "--steps" in text
    assert "--seed " not in text
    assert "--evaluate" not in text
