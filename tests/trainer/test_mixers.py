"""Mixers: what each of them wants sampled, against numbers worked out by hand, and what survives a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline import Corpus, Mixture, MixtureError, StateError, TargetSet
from trainer.mixers import (
    DGAMixer,
    DistributionMixer,
    DoGEMixer,
    ImportanceMixer,
    ImportanceRatioMixer,
    Mixer,
    ODMMixer,
)
from trainer.mixers.odm import exp3_policy, exploration


def wanted(mixer: Mixer, step: int = 0) -> np.ndarray:
    return mixer.mixture_at(step).probabilities


def updated(mixer: Mixer, scores: np.ndarray, step: int = 25) -> np.ndarray:
    mixer.update(step, scores)
    return wanted(mixer, step)


# --- importance sampling ----------------------------------------------------------------------------


def test_importance_is_the_targets_histogram(corpus: Corpus) -> None:
    coarse = ImportanceMixer(corpus.domains(k=3), corpus.target("alpha"))
    np.testing.assert_allclose(wanted(coarse), [0, 1, 0])
    fine = ImportanceMixer(corpus.domains(k=12), corpus.target("alpha"))
    np.testing.assert_allclose(wanted(fine), [0] * 4 + [1 / 4] * 4 + [0] * 4)


def test_importance_moves_the_share_of_empty_domains(
    numbered_corpus: Corpus, corpus: Corpus
) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    empty, full = int(np.argmin(view.sizes)), int(np.argmax(view.sizes))
    histogram = np.zeros(view.k)
    histogram[empty], histogram[full] = 0.75, 0.25
    target = _with_histogram(corpus, histogram)
    assert wanted(ImportanceMixer(view, target))[full] == 1
    histogram[full] = 0
    with pytest.raises(MixtureError, match="coarser view"):
        ImportanceMixer(view, _with_histogram(corpus, histogram))


def test_the_ratio_form_divides_by_natural_proportions(
    numbered_corpus: Corpus, corpus: Corpus
) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    small, large = np.argsort(view.sizes)[[-2, -1]]
    histogram = np.zeros(view.k)
    histogram[small] = histogram[large] = 0.5
    weights = wanted(ImportanceRatioMixer(view, _with_histogram(corpus, histogram)))
    # Equal shares of the target: weights are inverse to the sizes.
    assert weights[small] / weights[large] == pytest.approx(view.sizes[large] / view.sizes[small])
    assert (weights[view.sizes == 0] == 0).all()


# --- DGA --------------------------------------------------------------------------------------------


def test_dga_follows_the_scores_every_so_many_steps(corpus: Corpus) -> None:
    start = Mixture.natural(corpus.domains(k=3))
    mixer = DGAMixer(start, step_size=1.0, update_every=10)
    assert mixer.mixture_at(0) == start
    assert [step for step in range(31) if mixer.wants_scores(step)] == [10, 20, 30]
    np.testing.assert_allclose(updated(mixer, np.log([1.0, 2.0, 1.0])), [1 / 4, 2 / 4, 1 / 4])


def test_dga_goes_on_from_where_it_starts(corpus: Corpus) -> None:
    mixer = DGAMixer(Mixture(corpus.domains(k=3), np.array([0.5, 0.5, 0.0])), step_size=1.0)
    np.testing.assert_allclose(updated(mixer, np.log([1.0, 3.0, 99.0])), [1 / 4, 3 / 4, 0])


def test_standardized_scores_make_the_step_independent_of_their_size(corpus: Corpus) -> None:
    scores = np.array([0.1, 0.2, 0.6])
    start = Mixture.natural(corpus.domains(k=3))
    ends = [
        updated(DGAMixer(start, step_size=0.5, score_scale="std"), factor * scores)
        for factor in (1.0, 1e-3)
    ]
    np.testing.assert_allclose(ends[0], ends[1])
    assert np.log(ends[0][2] / ends[0][0]) == pytest.approx(0.5 * 0.5 / scores.std())


def test_the_average_is_sampled_and_the_weights_go_on_alone(corpus: Corpus) -> None:
    mixer = DGAMixer(Mixture.natural(corpus.domains(k=3)), step_size=1.0, ema=0.5)
    scores = np.log([1.0, 2.0, 1.0])
    first = updated(mixer, scores)
    np.testing.assert_allclose(first, (np.array([1, 1, 1]) / 3 + np.array([1, 2, 1]) / 4) / 2)
    second = updated(mixer, scores)
    np.testing.assert_allclose(mixer.weights, [1 / 6, 4 / 6, 1 / 6])
    np.testing.assert_allclose(second, (first + np.array([1, 4, 1]) / 6) / 2)


def test_the_next_update_may_start_at_the_average(corpus: Corpus) -> None:
    start = Mixture.uniform(corpus.domains(k=3))
    mixer = DGAMixer(start, step_size=1.0, ema=0.5, continue_from="average")
    scores = np.log([1.0, 2.0, 1.0])
    first = updated(mixer, scores)
    np.testing.assert_allclose(
        first, [7 / 24, 10 / 24, 7 / 24]
    )  # halfway from thirds to (1, 2, 1)/4
    # From there: (7, 20, 7)/34, and halfway to it.
    second = updated(mixer, scores)
    np.testing.assert_allclose(second, (first + np.array([7, 20, 7]) / 34) / 2)
    np.testing.assert_allclose(mixer.weights, second)
    lost = DGAMixer(start, step_size=1.0, ema=0.999, continue_from="average")
    for score in [-900.0] * 200 + [900.0] * 3:
        updated(lost, np.array([score, 0.0, 0.0]))
    assert wanted(lost)[0] > 0.99, "a domain that has lost comes back"


def test_empty_domains_keep_weight_0(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    weights = updated(DGAMixer(Mixture.natural(view)), np.ones(view.k))
    assert (weights[view.sizes == 0] == 0).all()
    np.testing.assert_allclose(weights, Mixture.natural(view).probabilities)


# --- DGA over distributions -------------------------------------------------------------------------


def test_distributions_are_mixed_by_their_weights(corpus: Corpus) -> None:
    view = corpus.domains(k=3)
    basis = {
        "left": Mixture(view, np.array([1.0, 0.0, 0.0])),
        "right": Mixture(view, np.array([0.0, 0.5, 0.5])),
    }
    mixer = DistributionMixer(basis, np.array([0.5, 0.5]), step_size=2.0)
    np.testing.assert_allclose(wanted(mixer), [1 / 2, 1 / 4, 1 / 4])
    # log α + 2 · (0, ln 2 / 2): α = (1, 2) / 3, and the mixture is (1, 1, 1) / 3.
    np.testing.assert_allclose(updated(mixer, np.array([0.0, np.log(2) / 2])), [1 / 3] * 3)
    assert mixer.details() == {"basis_weights": pytest.approx({"left": 1 / 3, "right": 2 / 3})}


def test_weights_of_another_basis_are_refused(corpus: Corpus) -> None:
    view = corpus.domains(k=3)
    basis = {"left": Mixture(view, np.array([1.0, 0.0, 0.0])), "natural": Mixture.natural(view)}
    mixer = DistributionMixer(basis, np.array([0.5, 0.5]))
    state = mixer.state_dict()
    for names in (("natural", "left"), ("left", "natural", "right")):
        other = {name: basis.get(name, Mixture.uniform(view)) for name in names}
        another = DistributionMixer(other, np.full(len(names), 1 / len(names)))
        with pytest.raises(StateError, match="are those of left, natural, and the basis here is"):
            another.load_state_dict(state)


def test_a_basis_needs_two_histograms(corpus: Corpus) -> None:
    with pytest.raises(
        MixtureError, match="the basis holds one; weights can only move between two"
    ):
        DistributionMixer({"one": Mixture.natural(corpus.domains(k=3))}, np.ones(1))


# --- DoGE -------------------------------------------------------------------------------------------


def test_doge_steps_as_far_as_the_learning_rate_says(corpus: Corpus) -> None:
    start = Mixture.uniform(corpus.domains(k=3))
    mixer = DoGEMixer(
        start, learning_rate=lambda step: 0.001 * (step + 1), bregman=0.05, update_every=10
    )
    # Ten steps at η = 0.001 · 10 (that of the last step, number 9) and μ = 0.05: the exponent is 2 W.
    first = updated(mixer, np.array([0.0, np.log(2) / 2, 0.0]), step=10)
    np.testing.assert_allclose(first, [1 / 4, 2 / 4, 1 / 4])
    # At step 20 η is 0.02 and the exponent 4 W.
    second = updated(mixer, np.array([np.log(2) / 4, 0.0, 0.0]), step=20)
    np.testing.assert_allclose(second, [2 / 5, 2 / 5, 1 / 5])


# --- ODM --------------------------------------------------------------------------------------------


def test_exploration_falls_after_k_ln_k_turns() -> None:
    assert exploration(4, 1) == exploration(4, 5) == 1 / 4
    assert exploration(4, 100) == pytest.approx(np.sqrt(np.log(4) / 400))


def test_the_policy_by_hand() -> None:
    # Powers (1, 2) / 3 of what 2 · 0.1 leave of 1, and 0.1 for sure.
    policy = exp3_policy(np.array([0.0, np.log(2)]), 1.0, 0.1)
    np.testing.assert_allclose(policy, [0.8 / 3 + 0.1, 1.6 / 3 + 0.1])
    np.testing.assert_allclose(exp3_policy(np.array([1e6, 0.0]), 1.0, 0.1), [0.9, 0.1])


def test_odm_draws_what_has_a_high_loss(corpus: Corpus) -> None:
    mixer = ODMMixer(corpus.domains(k=3))
    losses = np.array([10.0, 20.0, 0.0])
    for step in range(1, 4):
        np.testing.assert_allclose(updated(mixer, losses, step), [1 / 3] * 3)
    # From turn 4 on sqrt(ln 3 / (3 t)) is below 1/3. Rewards are by then four times (1, 2, 0); ε_3 = 1/3
    # weighs them and ε_4 is the floor.
    floor = np.sqrt(np.log(3) / 12)
    powers = np.exp(np.array([4.0, 8.0, 0.0]) / 3)
    expected = (1 - 3 * floor) * powers / powers.sum() + floor
    np.testing.assert_allclose(updated(mixer, losses, 4), expected)
    assert mixer.details() == {"exploration": pytest.approx(floor)}


def test_odm_leaves_empty_domains_alone(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    mixer = ODMMixer(view)
    for step in range(1, 400):
        mixer.update(step, np.where(view.sizes > 0, 3.0, 0.0))
    assert (wanted(mixer)[view.sizes == 0] == 0).all()
    np.testing.assert_allclose(wanted(mixer)[view.sizes > 0], 1 / (view.sizes > 0).sum())


# --- what they have in common -----------------------------------------------------------------------


def make_every_learner(corpus: Corpus) -> list[Mixer]:
    view = corpus.domains(k=corpus.num_leaves)
    natural = Mixture.natural(view)
    basis = {"natural": natural, "uniform": Mixture.uniform(view)}
    return [
        DGAMixer(natural, ema=0.3, score_scale="std"),
        DGAMixer(natural, ema=0.3, continue_from="average"),
        DoGEMixer(Mixture.uniform(view), learning_rate=lambda step: 0.01),
        DistributionMixer(basis, np.array([0.5, 0.5]), ema=0.3),
        ODMMixer(view),
    ]


def size_of_scores(mixer: Mixer) -> int:
    return len(mixer.names) if isinstance(mixer, DistributionMixer) else mixer.mixture_at(0).view.k


def test_a_restored_mixer_goes_on_alike(numbered_corpus: Corpus) -> None:
    for mixer, restored in zip(
        make_every_learner(numbered_corpus), make_every_learner(numbered_corpus), strict=True
    ):
        rng = np.random.default_rng(0)
        for step in range(1, 200):
            mixer.update(step, rng.uniform(size=size_of_scores(mixer)))
        restored.load_state_dict(json.loads(json.dumps(mixer.state_dict(), allow_nan=False)))
        assert restored.mixture_at(200) == mixer.mixture_at(200)
        scores = rng.uniform(size=size_of_scores(mixer))
        np.testing.assert_array_equal(updated(restored, scores, 200), updated(mixer, scores, 200))


def test_scores_that_are_not_finite_change_nothing_and_are_counted(corpus: Corpus) -> None:
    for mixer in make_every_learner(corpus):
        before = updated(mixer, np.full(size_of_scores(mixer), 0.5), 1)
        for bad in (np.nan, np.inf, -np.inf):
            scores = np.full(size_of_scores(mixer), 0.5)
            scores[1] = bad
            np.testing.assert_array_equal(updated(mixer, scores, 2), before)
        assert mixer.skipped_updates == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"step_size": -1.0},
        {"update_every": 0},
        {"ema": 0.0},
        {"ema": 1.5},
        {"score_scale": "log"},
        {"continue_from": "here"},
    ],
)
def test_settings_out_of_range_are_refused(corpus: Corpus, setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}={setting[name]!r}"):
        DGAMixer(Mixture.natural(corpus.domains(k=3)), **setting)


def _with_histogram(corpus: Corpus, histogram: np.ndarray) -> TargetSet:
    return replace(corpus.target("alpha"), leaf_histogram=histogram)
