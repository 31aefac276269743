"""The integration examples, run as a user runs them, on a tiny corpus with a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

PYTORCH = pytest.mark.parametrize("example", [["pytorch_loop"]], indirect=True)
HUGGINGFACE = pytest.mark.parametrize(
    "example", [["huggingface_trainer", "transformers", "accelerate"]], indirect=True
)
LIGHTNING = pytest.mark.parametrize("example", [["lightning_module", "lightning"]], indirect=True)


@PYTORCH
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pytorch_loop_that_stopped_ends_with_the_same_weights(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path, workers: int
) -> None:
    def run(name: str, steps: int) -> dict[str, Any]:
        where = tmp_path / f"{name}.pt"
        common = [str(tiny_corpus), "--k", "3", "--workers", str(workers)]
        example.main([*common, "--steps", str(steps), "--checkpoint", str(where)])
        saved: dict[str, Any] = torch.load(where)
        return saved

    whole = run("whole", 150)
    run("parts", 70)  # stops twenty steps after its checkpoint at 50
    with optimizer_takes(150 - 50):
        parts = run("parts", 150)
    assert same_weights(whole["model"], parts["model"])
    assert whole["stream"] == parts["stream"]


@PYTORCH
def test_the_pytorch_loop_moves_its_mixture_and_learns(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run.pt"
    first = example.main([str(tiny_corpus), "--steps", "1", "--checkpoint", str(checkpoint)])
    last = example.main([str(tiny_corpus), "--steps", "100", "--checkpoint", str(checkpoint)])
    assert last < 0.5 * first


@HUGGINGFACE
def test_a_trainer_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path
) -> None:
    def run(name: str, *options: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        common = ["--steps", "30", "--save-every", "10", "--out", str(tmp_path / name)]
        trainer = example.main([str(tiny_corpus), *common, *options])
        state = tmp_path / name / "checkpoint-30" / "stream.json"
        return trainer.model.state_dict(), json.loads(state.read_text())

    whole = run("whole")
    shutil.copytree(tmp_path / "whole" / "checkpoint-10", tmp_path / "parts" / "checkpoint-10")
    with optimizer_takes(30 - 10):
        parts = run("parts", "--resume")
    assert same_weights(whole[0], parts[0])
    assert whole[1] == parts[1]


@LIGHTNING
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's use of torch
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")  # it goes on there
def test_a_lightning_run_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    example: ModuleType, tiny_corpus: Path, tmp_path: Path
) -> None:
    def run(*options: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        common = ["--steps", "30", "--save-every", "10", "--out", str(tmp_path)]
        trainer = example.main([str(tiny_corpus), *common, *options])
        return trainer.model.state_dict(), trainer.datamodule.stream.state_dict()

    whole = run()
    with optimizer_takes(30 - 10):
        parts = run("--resume", str(tmp_path / "step=10.ckpt"))
    assert same_weights(whole[0], parts[0])
    assert whole[1] == parts[1]


@contextmanager
def optimizer_takes(steps: int) -> Iterator[None]:
    """So many are taken meanwhile: by a run that goes on; one that began anew would end the same."""
    taken: list[Optimizer] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: taken.append(optimizer))
    yield
    hook.remove()
    assert len(taken) == steps


def same_weights(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )
