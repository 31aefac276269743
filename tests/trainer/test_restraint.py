"""Bound and reserve of the default, by how much of the target's domains a model can learn by heart."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import BudgetError, Corpus, Mixture
from tests.trainer.test_presets import make
from tests.trainer.test_run import records
from tests.trainer.test_steering import make_model
from trainer import Steering, SteeringConfig, TrainConfig, train
from trainer.mixers import (
    PRESETS,
    MixerSettings,
    Restraint,
    UnknownMixerError,
    importance_mixture,
    smoothed_target,
)
from trainer.mixers.restraint import restrained, restraint

FADING = PRESETS["importance-fading"]


def test_the_general_start_gives_way_to_the_samples_that_a_model_cannot_hold(
    corpus: Corpus,
) -> None:
    view = corpus.domains(k=3)
    one, two, three = view.sizes
    histogram = Mixture.from_weights(view, np.array([0.25, 0.75, 0.0]))
    samples = 1 / (0.25**2 / one + 0.75**2 / two)
    assert three > 0
    for ratio, expected in [(0.01, 1), (0.15, 1), (0.575, 0.5), (0.915, 0.1), (1, 0), (20, 0)]:
        found = restraint(histogram, capacity=samples / ratio, drawn=1, max_passes=6)
        assert found.share == pytest.approx(expected)
        assert found.passes == (1 if found.share else math.inf)


def test_the_bound_gives_way_to_worn_text_that_a_model_cannot_hold(corpus: Corpus) -> None:
    view = corpus.domains(k=3)
    one, two, _ = map(int, view.sizes)
    histogram = Mixture.from_weights(view, np.array([0.3, 0.7, 0.0]))
    once_over_one, once_over_two = one / 0.3, two / 0.7
    assert once_over_two < once_over_one
    for drawn, worn in [
        (5.9 * once_over_two, 0),
        (6.1 * once_over_two, two),
        (6.1 * once_over_one, one + two),
    ]:
        for ratio, expected in [(0.1, 1), (0.15, 1), (0.2, 1 + 2 / 3), (0.3, 3), (0.5, 3)]:
            found = restraint(
                histogram, capacity=(worn or one) / ratio, drawn=round(drawn), max_passes=6
            )
            assert found.passes == pytest.approx(expected if worn else 1)


def test_what_would_be_drawn_often_may_be_drawn_a_third_more_often(corpus: Corpus) -> None:
    """Natural proportions are drawn from every sample, so a pass is the whole corpus."""
    natural, n = Mixture.natural(corpus.domains(k=12)), corpus.num_samples
    for repeated, passes in [(0.1, 1), (18, 1), (21, 7 / 6), (24, 4 / 3), (1000, 4 / 3)]:
        found = restraint(natural, capacity=100 * n, drawn=int(repeated * n), max_passes=6)
        assert (found.share, found.passes) == (1, pytest.approx(passes))  # type: ignore[comparison-overlap]
    assert restraint(natural, capacity=2 * n, drawn=1000 * n, max_passes=6).passes == 3
    assert math.isinf(restraint(natural, capacity=n, drawn=1000 * n, max_passes=6).passes)


def test_bound_and_reserve_give_way_apart() -> None:
    by = Restraint(share=0.5, passes=3)
    assert restrained(FADING, by) == replace(FADING, max_passes=18, natural_share=0.15)
    assert restrained(FADING, Restraint(share=1, passes=1)) == FADING
    ends_higher = replace(FADING, natural_share=0.5, natural_share_end=0.1)
    assert restrained(ends_higher, by).natural_share == pytest.approx(0.3)
    kept = MixerSettings(method="importance", max_passes=8, natural_share=0.9)
    assert restrained(kept, by) == replace(kept, max_passes=24)


def test_a_model_that_can_hold_nothing_samples_by_importance(corpus: Corpus) -> None:
    made = make(corpus, "importance-fading", k=12, capacity=0.5)
    seen = smoothed_target(corpus, corpus.target("alpha"))
    wanted = importance_mixture(corpus.domains(k=12), seen)
    assert made.restraint == Restraint(share=0, passes=math.inf)
    assert made.budget is None
    for step in (0, 25, 49):
        drawn = np.full(12, 10 * step)
        assert made.blend(made.mixer.mixture_at(step), step, drawn) == wanted


def test_a_bound_that_is_too_small_is_named_as_it_was_set(corpus: Corpus) -> None:
    """The rule triples it here, which is too little as well; what the error advises is enough."""
    run = {"k": 12, "capacity": 100, "num_steps": 50}
    settings = replace(FADING, max_passes=0.2)
    made = make(corpus, settings, **run | {"num_steps": 15})
    assert made.budget.max_passes == pytest.approx(0.6)
    with pytest.raises(BudgetError) as refused:
        make(corpus, settings, **run)
    advice = re.fullmatch(
        r"max_passes=0\.2 allows \d+ samples in all, but .* Allow at least (\S+) passes, or train for "
        r"at most (\d+) steps\.",
        str(refused.value),
    )
    assert advice is not None
    make(corpus, replace(settings, max_passes=float(advice[1])), **run)
    make(corpus, settings, **run | {"num_steps": int(advice[2])})


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
        capacity = parameters / corpus.tokens_per_sample
        assert steering.restraint == restraint(
            wanted, capacity=capacity, drawn=50 * 8, max_passes=6
        )
        details = steering.details()
        assert details["restraint"] == steering.restraint.share
        assert details["max_passes"] == steering.max_passes
        shares.append(steering.restraint.share)
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
    for passes, said in ((1.25, "up to 7.5 passes"), (math.inf, "no bound on passes")):
        found = Restraint(share=0.25, passes=passes)
        monkeypatch.setattr("trainer.mixers.make.restraint", lambda _, found=found, **run: found)
        train(corpus, config, tmp_path / str(passes))
        told = " ".join(capsys.readouterr().out.split())
        assert f"{said}, general start at 25% of its size" in told
        mixture = records(tmp_path / str(passes), "mixture")[0]
        assert mixture["restraint"] == 0.25
        assert mixture["max_passes"] == (None if math.isinf(passes) else 7.5)


def test_without_a_model_to_compare_with_it_says_so(corpus: Corpus) -> None:
    with pytest.raises(UnknownMixerError, match=r"pass capacity=…"):
        make(corpus, "importance-fading", capacity=None)
