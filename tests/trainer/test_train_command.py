"""`braidstream train` as a user meets it: in processes of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import Corpus, open_corpus
from tests.corpora import add_segment
from tests.trainer.ranks import become_rank, free_port, start_ranks
from tests.trainer.test_run import assert_same_run, only_the_rest_of, records, records_stay
from trainer.run.run_folder import RunFolderError
from trainer.train_command import main

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SMALL = """--target alpha --evaluate beta --mixer dga --k 6 --preset 1m --batch-size 8 --update-every 6
    --log-every 5 --eval-every 10 --eval-sequences 8 --checkpoint-every 1000 --target-batch 16
    --device cpu""".split()  # noqa: SIM905 - as it is typed
STEPS = "30"
"""Of runs that are stopped after the first five."""


def settings(corpus: Corpus, out: Path, *more: str) -> list[str]:
    return [str(corpus.path), *SMALL, *more, "--out", str(out)]


def in_a_process(arguments: list[str], *launcher: str) -> subprocess.Popen[str]:
    """One process that trains, as `braidstream compare` starts it."""
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "trainer.train_command", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_the_same_command_continues(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    metrics = stopped / "metrics.jsonl"
    with in_a_process(settings(corpus, stopped, "--steps", STEPS)) as process:
        while process.poll() is None and not (metrics.exists() and records(stopped, "train")):
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopped and saved after step" in output
    assert shlex.join(settings(corpus, stopped, "--steps", STEPS)) in output.splitlines()[-1]
    assert not (stopped / "result.json").exists()
    (saved,) = (stopped / "checkpoints").iterdir()
    assert 5 <= int(saved.name.removeprefix("step-")) < int(STEPS)

    with only_the_rest_of(stopped):
        assert main(settings(corpus, stopped, "--steps", STEPS)) == 0
    assert main(settings(corpus, whole, "--steps", STEPS)) == 0
    assert f"finished: {STEPS} steps" in capsys.readouterr().out
    assert_same_run(stopped, whole, step=int(STEPS))


def test_torchrun_trains_what_one_process_trains(corpus: Corpus, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    with in_a_process(settings(corpus, tmp_path / "two", "--steps", "15"), *launcher) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("finished: 15 steps") == 1
    assert "Warning" not in errors
    assert main(settings(corpus, tmp_path / "one", "--steps", "15")) == 0
    # The same batches and measurements; sums over two halves are rounded differently.
    for event, field, tolerance in [
        ("train", "train_loss", 1e-4),
        ("eval", "generic_loss", 1e-4),
        ("mixture", "weights", 1e-2),
        ("mixture", "scores", 1e-2),
        ("mixture", "passes", 0.2),
    ]:
        one, two = (records(tmp_path / name, event) for name in ("one", "two"))
        assert len(one) == len(two) > 0
        for left, right in zip(one, two, strict=True):
            assert left["step"] == right["step"]
            assert left[field] == pytest.approx(right[field], abs=tolerance)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="ranks are found in /proc")
def test_torchrun_restarts_a_run_whose_rank_was_killed(corpus: Corpus, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    run, restarts = tmp_path / "run", "--max-restarts=1"
    arguments = settings(corpus, run, "--steps", STEPS, "--checkpoint-every", "5")
    with in_a_process(arguments, *launcher, restarts) as process:
        while process.poll() is None and not any((run / "checkpoints").glob("step-*")):
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("utf-8")
        with records_stay(run):
            os.kill(int(children.split()[-1]), signal.SIGKILL)
            output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"finished: {STEPS} steps" in output
    whole = settings(corpus, tmp_path / "whole", "--steps", STEPS, "--checkpoint-every", "5")
    start_ranks(_train_as_rank, free_port(), whole, count=2)
    assert_same_run(run, tmp_path / "whole", step=int(STEPS))


def _train_as_rank(rank: int, port: int, arguments: list[str]) -> None:
    become_rank(rank, 2, port)
    assert main(arguments) == 0


def test_a_run_goes_on_with_the_version_that_it_began_with(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    corpus = open_corpus(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    stopped, whole = (settings(corpus, tmp_path / name, "--steps", STEPS) for name in "ab")
    metrics = tmp_path / "a" / "metrics.jsonl"
    with in_a_process(stopped) as process:
        while process.poll() is None and not (
            metrics.exists() and records(metrics.parent, "train")
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert main(whole) == 0
    length = corpus.tokens_per_sample
    add_segment(
        corpus.path,
        [9, 0, 5] * 4,
        tokens=lambda leaves: np.full((len(leaves), length), 9, dtype=np.uint16),
    )
    with pytest.raises(RunFolderError, match=r"open its version 1, .* or --version 1"):
        main(stopped)
    with only_the_rest_of(tmp_path / "a"):
        assert main([*stopped, "--version", "1"]) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b", step=int(STEPS))
    # And a run on all of it, which measures domains and reads scores of leaves in two segments.
    newest = settings(corpus, tmp_path / "c", "--steps", "20", "--estimator", "probe")
    assert main(newest) == 0
    result = json.loads((tmp_path / "c" / "config.json").read_text())
    assert (
        result["corpus_fingerprint"] == open_corpus(corpus.path).fingerprint != corpus.fingerprint
    )


def test_commas_separate_names(corpus: Corpus, tmp_path: Path) -> None:
    arguments = settings(corpus, tmp_path / "run", "--steps", "2", "--evaluate", "beta,alpha")
    assert main(arguments) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["evaluate"] == ["alpha", "beta"]


def test_a_finished_run_is_reported_and_not_repeated(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = settings(corpus, tmp_path / "run", "--steps", "2")
    assert main(arguments) == 0
    assert "finished: 2 steps" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "already finished, nothing to do" in capsys.readouterr().out


def test_errors_are_one_line_without_traceback(corpus: Corpus, tmp_path: Path) -> None:
    with in_a_process(settings(corpus, tmp_path / "run", "--target", "gamma")) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith("error: this corpus has no target set 'gamma'")
    assert not (tmp_path / "run").exists()


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, trainer.train_command as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    helped = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--evaluate A,B" in helped.stdout


def test_public_names_are_all_there() -> None:
    import trainer

    for name in trainer.__all__:
        assert getattr(trainer, name) is not None
    assert trainer.train.__module__ == "trainer.run.loop"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        trainer.trian  # noqa: B018
    assert torch.nn.Module in trainer.GPT.__mro__
