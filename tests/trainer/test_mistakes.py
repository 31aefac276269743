"""What goes wrong on a first day, and what is said of it."""

from __future__ import annotations

import shutil
import signal
from errno import ENOSPC
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline import BraidstreamError, BudgetError, Corpus
from trainer.compare import compare as comparison
from trainer.compare_command import main as compare
from trainer.run.checkpoint import Checkpoint, save_checkpoint
from trainer.run.config import ConfigError, TrainConfig
from trainer.run.distributed import DeviceError
from trainer.run.loop import train
from trainer.train_command import main as train_command

SMALL = ["--preset", "1m", "--steps", "2", "--batch-size", "4", "--device", "cpu"]


@pytest.mark.parametrize(
    "example",
    [
        ["huggingface_trainer", "transformers", "accelerate"],
        ["steer_huggingface", "transformers", "accelerate"],
    ],
    indirect=True,
)
def test_resuming_a_finished_trainer_trains_no_further(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steers = example.__name__.endswith("steer_huggingface")
    options = ["--steps", "4", "--save-every", "2", "--out", str(tmp_path)]
    options += ["--target", "alpha"] if steers else []
    assert example.main([str(tiny_corpus), *options]).state.global_step == 4
    assert example.main([str(tiny_corpus), *options, "--resume"]).state.global_step == 0
    assert "checkpoint-4 has all 4 steps" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_an_error_before_any_run(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = [str(corpus.path), *SMALL[:-1], "cuda", "--out", str(tmp_path / "run")]
    for command, mixer in ((train_command, "--mixer"), (compare, "--mixers")):
        with pytest.raises(DeviceError, match="Take auto or cpu"):
            command([*options, mixer, "natural"])
    assert not (tmp_path / "run").exists()


def test_a_mixer_that_never_learns_is_named(
    corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ["--target", "alpha", "--mixer", "dga", "--out", str(tmp_path / "run")]
    assert train_command([str(corpus.path), *SMALL, *own]) == 0
    said = "note: dga learns every 25 steps, and the run has 2"
    assert said in capsys.readouterr().out
    # Of a comparison, which says so before it runs anything.
    monkeypatch.setattr(comparison, "run_cells", lambda *_, **__: signal.SIGINT)
    own = ["--targets", "alpha", "--mixers", "dga,dga+update_every=1"]
    own += ["--out", str(tmp_path / "all")]
    assert compare([str(corpus.path), *SMALL, *own]) == 128 + signal.SIGINT
    assert capsys.readouterr().out.count("note: ") == 1


def test_a_comparison_without_a_finished_run_says_why(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus.path, damaged)
    (damaged / "heldout.npy").write_bytes(b"")
    own = ["--mixers", "natural", "--targets", "alpha", "--out", str(tmp_path / "runs")]
    assert compare([str(damaged), *SMALL, *own]) == 1
    error = capsys.readouterr().err
    assert "fetch or build the corpus again" in error
    assert "1 failed; the same command tries again." in error


def test_thresholds_of_health_are_called_alike_in_a_comparison(
    corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(BraidstreamError, match="there are no runs"):
        compare(
            [
                str(corpus.path),
                "--health.still-distance",
                "0.1",
                "--report-only",
                "--out",
                str(tmp_path),
            ]
        )


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({}, ConfigError, r"'importance-fading' steers towards .* --target \(alpha, beta\)"),
        (
            {"target": "alpha", "steps": 10_000, "restraint": "full"},
            BudgetError,
            "'importance-fading' bounds passes: .* at most .* steps. Or take a mixer without a bound",
        ),
    ],
)
def test_an_error_names_the_mixer_that_was_chosen(
    corpus: Corpus, tmp_path: Path, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    config = TrainConfig(preset="1m", device="cpu", **settings)
    with pytest.raises(kind, match=message):
        train(corpus, config, tmp_path / "run", quiet=True)


def test_a_full_disk_is_named_where_torch_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("unexpected pos 4597888 vs 4597776")

    monkeypatch.setattr(torch, "save", full)
    checkpoint = Checkpoint(step=1, model={}, optimizer={}, random={}, state={})
    with pytest.raises(RuntimeError, match="unexpected pos"):
        save_checkpoint(tmp_path, checkpoint)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=r"No space left on device: .*model\.pt") as failure:
        save_checkpoint(tmp_path, checkpoint)
    assert failure.value.errno == ENOSPC
