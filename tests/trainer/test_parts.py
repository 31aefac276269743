"""The small parts: schedule, optimizer groups, checkpoint folders, metrics, evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import Corpus, StateError
from tests.trainer.conftest import CPU
from trainer.model import TokenLoss
from trainer.run.batches import micro_batches
from trainer.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trainer.run.distributed import Ranks
from trainer.run.evaluation import Evaluator, evenly
from trainer.run.metrics import MetricsWriter, domain_values
from trainer.run.schedule import CosineSchedule, make_optimizer


def test_the_rate_rises_to_the_peak_and_falls_to_a_tenth() -> None:
    schedule = CosineSchedule(peak=1.0, warmup_steps=4, num_steps=104)
    assert [schedule.at(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule.at(54) == pytest.approx(0.55)
    assert schedule.at(104) == pytest.approx(0.1)
    rates = [schedule.at(step) for step in range(4, 105)]
    assert rates == sorted(rates, reverse=True)


def test_only_matrices_decay(trained_loss: TokenLoss) -> None:
    optimizer = make_optimizer(trained_loss, learning_rate=1.0, weight_decay=0.1)
    decaying, others = optimizer.param_groups
    assert decaying["weight_decay"] == 0.1
    assert {parameter.ndim for parameter in decaying["params"]} == {2}
    assert others["weight_decay"] == 0
    assert {parameter.ndim for parameter in others["params"]} == {1}
    counted = len(decaying["params"]) + len(others["params"])
    assert counted == len(list(trained_loss.parameters()))


def test_micro_batches_have_one_shape_and_lose_no_row() -> None:
    tokens = np.arange(7 * 3, dtype=np.uint16).reshape(7, 3)
    batches = list(micro_batches(tokens, size=3, pad_id=9, device=CPU))
    assert [tuple(batch.shape) for batch, _ in batches] == [(3, 3)] * 3
    held = [batch[: rows.stop - rows.start].numpy() for batch, rows in batches]
    np.testing.assert_array_equal(np.concatenate(held), tokens)
    assert (batches[-1][0][1:] == 9).all()


def _checkpoint(step: int) -> Checkpoint:
    tensors = {"weight": torch.full((2,), float(step))}
    return Checkpoint(
        step=step, model=tensors, optimizer={}, random={}, state={"metrics_bytes": 10 * step}
    )


def test_the_last_two_checkpoints_are_kept_and_the_last_is_loaded(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, CPU) is None
    for step in (5, 999_999, 1_000_000):
        save_checkpoint(tmp_path, _checkpoint(step))
    assert {path.name for path in tmp_path.iterdir()} == {"step-999999", "step-1000000"}
    loaded = load_checkpoint(tmp_path, CPU)
    assert loaded is not None
    assert (loaded.step, loaded.state["metrics_bytes"]) == (1_000_000, 10_000_000)
    torch.testing.assert_close(loaded.model["weight"], torch.full((2,), 1e6))


def test_an_unfinished_checkpoint_is_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, _checkpoint(5)).rename(tmp_path / ".step-000006.tmp")
    assert load_checkpoint(tmp_path, CPU) is None
    save_checkpoint(tmp_path, _checkpoint(6))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000006"]


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    state = save_checkpoint(tmp_path, _checkpoint(5)) / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "version": 99}))
    with pytest.raises(StateError, match=r"version 99; this version .* reads version 2"):
        load_checkpoint(tmp_path, CPU)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, _checkpoint(5))
    torch.save({"weight": Path("an object that is no tensor")}, folder / "model.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        load_checkpoint(tmp_path, CPU)


def test_metrics_are_cut_back_and_hold_only_what_json_has(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, keep_bytes=0) as metrics:
        metrics.write("train", 1, train_loss=float("nan"), lists=[1.0, float("inf")])
        length = metrics.sync()
        metrics.write("train", 2, train_loss=1.0)
    with MetricsWriter(path, keep_bytes=length) as metrics:
        metrics.write("train", 3, train_loss=2.0)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"event": "train", "step": 1, "train_loss": None, "lists": [1.0, None]},
        {"event": "train", "step": 3, "train_loss": 2.0},
    ]


def test_many_domains_are_recorded_by_their_largest() -> None:
    values = np.zeros(5000)
    values[4000], values[17] = -3.0, 2.0
    assert domain_values(values[:1024]) == values[:1024].tolist()
    recorded = domain_values(values)
    assert isinstance(recorded, dict)
    assert len(recorded["index"]) == len(recorded["value"]) == 256
    found = dict(zip(recorded["index"], recorded["value"], strict=True))
    assert (found[4000], found[17]) == (-3.0, 2.0)


def test_a_bounded_evaluation_sees_all_of_a_set(corpus: Corpus) -> None:
    rows = evenly(np.arange(1000)[:, None], 10)[:, 0]
    assert (rows[0], rows[-1], len(set(rows.tolist()))) == (0, 999, 10)
    np.testing.assert_array_equal(evenly(corpus.heldout, 10_000), corpus.heldout)


def test_evaluation_is_the_mean_over_tokens(corpus: Corpus, trained_loss: TokenLoss) -> None:
    evaluator = Evaluator(
        corpus, ["alpha"], max_sequences=10_000, batch_size=5, device=CPU, ranks=Ranks()
    )
    test = torch.from_numpy(corpus.target("alpha").test.astype(np.int64))
    with torch.no_grad():
        expected = float(trained_loss(test).mean())  # no block of this set is padded
    evaluation = evaluator.evaluate(trained_loss)
    assert evaluation.target_loss["alpha"] == pytest.approx(expected, rel=1e-5)
    train = evaluation.target_train_loss["alpha"]
    assert train is not None
    assert evaluation.generalization_gap["alpha"] == pytest.approx(expected - train, rel=1e-3)
    padded = corpus.heldout.copy()
    padded[3:, 4:] = corpus.pad_id
    alone = evaluator._mean(trained_loss, padded[:3])
    rest = evaluator._mean(trained_loss, padded[3:])
    assert alone is not None
    assert rest is not None
    tokens = np.array([3 * (corpus.tokens_per_sample - 1), 3 * (len(padded) - 3)])
    both = tokens @ [alone, rest] / tokens.sum()
    assert evaluator._mean(trained_loss, padded) == pytest.approx(both, rel=1e-6)
    assert evaluator._mean(trained_loss, padded[:0]) is None
