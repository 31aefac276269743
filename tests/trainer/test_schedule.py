"""Weights from a file: plans that someone wrote, and what another run was steered by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Corpus, Mixture, MixtureError, MixtureStream, View, open_corpus
from pipeline.samples.packing import packed, unpacked
from tests.corpora import write_corpus
from tests.trainer.test_run import final_weights, records
from trainer import TrainConfig, train
from trainer.mixers import read_schedule
from trainer.run.metrics import MetricsWriter, MixtureHistory

pytestmark = pytest.mark.usefixtures("tiny_preset")


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def view(corpus: Corpus) -> View:
    return corpus.domains(k=3)


def test_weights_hold_until_the_next_line(view: View, tmp_path: Path) -> None:
    path = written(
        tmp_path / "plan.jsonl",
        {"step": 0, "weights": [1, 2, 1]},
        {"step": 10, "weights": {"index": [2], "value": [1.0]}},
    )
    mixer = read_schedule(path, view)
    for step, weights in [(0, [0.25, 0.5, 0.25]), (9, [0.25, 0.5, 0.25]), (10, [0, 0, 1])]:
        np.testing.assert_allclose(mixer.mixture_at(step).probabilities, weights)
    assert mixer.mixture_at(500) is mixer.mixture_at(10)
    assert not mixer.wants_scores(10)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"step": 5, "weights": [1, 1, 1]}], "begins at step 5"),
        ([{"step": 0, "weights": [1, 1]}], r"plan.jsonl:1 .* over 3 domains .*shape \(2,\)"),
        ([{"step": 0}], r"plan.jsonl:1 .*weights"),
        ([{"step": 0, "weights": {"index": [3], "value": [1]}}], r"plan.jsonl:1 .*index 3"),
        ([[1, 2]], r"plan.jsonl:1"),
        ([], "begins at step None"),
    ],
)
def test_a_file_that_is_no_schedule_is_explained(
    view: View, tmp_path: Path, lines: list[Any], message: str
) -> None:
    with pytest.raises(MixtureError, match=message):
        read_schedule(written(tmp_path / "plan.jsonl", *lines), view)


def test_a_file_that_is_not_there_is_named(view: View, tmp_path: Path) -> None:
    with pytest.raises(MixtureError, match=r"plan.jsonl cannot be read"):
        read_schedule(tmp_path / "plan.jsonl", view)


def test_a_file_that_is_no_text_is_named(view: View, tmp_path: Path) -> None:
    np.save(tmp_path / "plan.npy", np.ones(3))
    with pytest.raises(MixtureError, match=r"plan.npy cannot be read"):
        read_schedule(tmp_path / "plan.npy", view)


def test_the_order_of_lines_is_that_of_their_steps(view: View, tmp_path: Path) -> None:
    lines = [{"step": step, "weights": [1, step > 0, 0]} for step in (0, 500, 250)]
    mixer = read_schedule(written(tmp_path / "plan.jsonl", *lines), view)
    np.testing.assert_array_equal(mixer.mixture_at(250).probabilities, [0.5, 0.5, 0])
    assert mixer.mixture_at(500) is mixer.mixture_at(250), (
        "nothing is renewed where nothing changes"
    )


def test_packed_floats_are_the_same_bits() -> None:
    values = np.array([0.1, 1 / 3, 5e-324, 0.0])
    np.testing.assert_array_equal(unpacked(packed(values), np.float64), values)


def test_packed_weights_go_before_the_few_that_are_listed(view: View, tmp_path: Path) -> None:
    few = {"index": [1], "value": [0.5]}
    whole = np.array([0.2, 0.5, 0.3])
    record = {"event": "mixture", "weights": few}
    path = written(
        tmp_path / "metrics.jsonl",
        {"event": "train", "step": 0},
        {**record, "step": 0, "weights_packed": packed(whole)},
        {**record, "step": 8},
        {**record, "step": 9, "weights_packed": packed(whole[::-1])},
    )
    mixer = read_schedule(path, view)
    np.testing.assert_array_equal(mixer.mixture_at(8).probabilities, whole)
    np.testing.assert_array_equal(mixer.mixture_at(9).probabilities, whole[::-1])


def test_a_record_of_very_many_domains_can_be_replayed(tmp_path: Path) -> None:
    leaves = 1100
    corpus = open_corpus(write_corpus(tmp_path / "corpus", [1] * leaves, levels=(1, leaves)))
    view = corpus.domains(k=leaves)
    rng = np.random.default_rng(0)
    mixtures = [Mixture.from_weights(view, rng.random(leaves)) for _ in range(2)]
    stream = MixtureStream(corpus, mixtures[0], batch_size=4)
    history = MixtureHistory(mixtures[0])
    with MetricsWriter(tmp_path / "metrics.jsonl", keep_bytes=0) as metrics:
        for step, mixture in [(0, mixtures[0]), (1, mixtures[1]), (2, mixtures[1])]:
            stream.set_mixture(mixture)
            metrics.write("mixture", step, **history.record(stream, steps=9, scores=None))
    mixer = read_schedule(tmp_path / "metrics.jsonl", view)
    assert [mixer.mixture_at(step) for step in range(3)] == [mixtures[0], *[mixtures[1]] * 2]
    packed = ["weights_packed" in record for record in records(tmp_path)]
    assert packed == [True, True, False]


def test_a_replay_ends_with_the_bits_of_the_run(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    steered = replace(config, mixer="dga-paced+natural_share=0.2+natural_share_end=0")
    train(corpus, steered, tmp_path / "run", quiet=True)
    replayed = replace(
        config,
        mixer="schedule",
        weights_file=str(tmp_path / "run" / "metrics.jsonl"),
        target=None,
        max_passes=8,
        surplus="mixture",
        update_every=None,
    )
    train(corpus, replayed, tmp_path / "replay", quiet=True)
    expected = final_weights(tmp_path / "run")
    for name, value in final_weights(tmp_path / "replay").items():
        assert value.equal(expected[name]), name
    moved = [[r["step"] for r in records(tmp_path / run, "mixture")] for run in ("run", "replay")]
    assert moved[0] == moved[1]


def test_the_last_weights_of_a_run_frozen_from_the_start(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    train(corpus, config, tmp_path / "run", quiet=True)
    found = records(tmp_path / "run", "mixture")
    frozen = replace(
        config,
        mixer="schedule+replay=last",
        weights_file=str(tmp_path / "run" / "metrics.jsonl"),
        target=None,
        update_every=None,
    )
    train(corpus, frozen, tmp_path / "frozen", quiet=True)
    assert found[-1]["weights"] != found[0]["weights"]
    for record in records(tmp_path / "frozen", "mixture"):
        assert record["weights"] == found[-1]["weights"]
