"""Bound and reserve of the default, by how much of the target's domains a model can learn by heart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import Corpus, Mixture
from tests.trainer.test_presets import make
from tests.trainer.test_run import records
from tests.trainer.test_steering import make_model
from trainer import Steering, SteeringConfig, TrainConfig, train
from trainer.mixers import (
    PRESETS,
    MixerSettings,
    UnknownMixerError,
    importance_mixture,
    smoothed_target,
)
from trainer.mixers.restraint import restrained, restraint

FADING = PRESETS["importance-fading"]


def test_it_compares_the_samples_that_are_drawn_with_those_that_a_model_holds(
    corpus: Corpus,
) -> None:
    view = corpus.domains(k=3)
    one, two, three = view.sizes
    histogram = Mixture.from_weights(view, np.array([0.25, 0.75, 0.0]))
    samples = 1 / (0.25**2 / one + 0.75**2 / two)
    assert three > 0
    for ratio, expected in [(0.01, 1), (0.15, 1), (0.575, 0.5), (0.915, 0.1), (1, 0), (20, 0)]:
        assert restraint(histogram, samples / ratio) == pytest.approx(expected)


def test_natural_proportions_are_drawn_from_every_sample(corpus: Corpus) -> None:
    natural = Mixture.natural(corpus.domains(k=12))
    assert restraint(natural, corpus.num_samples / 0.575) == pytest.approx(0.5)


def test_half_of_it_is_twice_the_passes_and_half_the_reserve() -> None:
    half = restrained(FADING, 0.5)
    assert half == replace(FADING, max_passes=12, natural_share=0.15)
    assert restrained(FADING, 1.0) == FADING
    ends_higher = replace(FADING, natural_share=0.5, natural_share_end=0.1)
    assert restrained(ends_higher, 0.5).natural_share == pytest.approx(0.3)
    kept = MixerSettings(method="importance", max_passes=8, natural_share=0.9)
    assert restrained(kept, 0.5) == replace(kept, max_passes=16)


def test_a_model_that_can_hold_nothing_samples_by_importance(corpus: Corpus) -> None:
    made = make(corpus, "importance-fading", k=12, capacity=0.5)
    seen = smoothed_target(corpus, corpus.target("alpha"))
    wanted = importance_mixture(corpus.domains(k=12), seen)
    assert made.restraint == 0
    assert made.budget is None
    for step in (0, 25, 49):
        drawn = np.full(12, 10 * step)
        assert made.blend(made.mixer.mixture_at(step), step, drawn) == wanted


def test_steering_counts_a_token_for_each_parameter_that_is_trained(corpus: Corpus) -> None:
    loss = make_model(corpus)
    seen = smoothed_target(corpus, corpus.target("alpha"))
    wanted = importance_mixture(corpus.domains(k=3), seen)
    config = SteeringConfig(num_steps=50, batch_size=8, target="alpha", k=3)
    assert config.mixer == TrainConfig().mixer == "importance-fading"
    shares = []
    for trained in (True, False):
        for parameter in loss.model.blocks.parameters():
            parameter.requires_grad_(trained)
        parameters = sum(p.numel() for p in loss.parameters() if p.requires_grad)
        steering = Steering(corpus, config, loss)
        assert steering.restraint == restraint(wanted, parameters / corpus.tokens_per_sample)
        assert steering.details()["restraint"] == steering.restraint
        shares.append(steering.restraint)
    assert shares[0] > shares[1]


def test_a_run_says_that_it_holds_back_less(
    corpus: Corpus,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = replace(config, mixer="importance-fading", update_every=None, steps=2)
    train(corpus, config, tmp_path / "able")
    assert "by heart" not in capsys.readouterr().out
    monkeypatch.setattr("trainer.mixers.make.restraint", lambda histogram, capacity: 0.25)
    train(corpus, config, tmp_path / "small")
    assert "relaxed (restraint 0.25)" in " ".join(capsys.readouterr().out.split())
    assert records(tmp_path / "small", "mixture")[0]["restraint"] == 0.25


def test_without_a_model_to_compare_with_it_says_so(corpus: Corpus) -> None:
    with pytest.raises(UnknownMixerError, match=r"pass capacity=…"):
        make(corpus, "importance-fading", capacity=None)
