"""Mixers: what each of them samples, what they keep over a stop, and their names."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline import Corpus, Mixture, MixtureError
from trainer.mixers import (
    PRESETS,
    DGAMixer,
    ImportanceMixer,
    MixerSettings,
    UnknownMixerError,
    importance_mixture,
    make_mixer,
    mixer_settings,
)


def test_importance_is_the_targets_histogram(corpus: Corpus) -> None:
    coarse = ImportanceMixer(corpus.domains(k=3), corpus.target("alpha")).mixture
    np.testing.assert_allclose(coarse.probabilities, [0, 1, 0])
    fine = ImportanceMixer(corpus.domains(k=12), corpus.target("alpha")).mixture
    np.testing.assert_allclose(fine.probabilities, [0] * 4 + [1 / 4] * 4 + [0] * 4)


def test_importance_moves_the_share_of_empty_domains(
    numbered_corpus: Corpus, corpus: Corpus
) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    empty, full = int(np.argmin(view.sizes)), int(np.argmax(view.sizes))
    target = corpus.target("alpha")
    histogram = np.zeros(view.k)
    histogram[empty], histogram[full] = 0.75, 0.25
    assert (
        ImportanceMixer(view, _with_histogram(target, histogram)).mixture.probabilities[full] == 1
    )
    histogram[full] = 0
    with pytest.raises(MixtureError, match="coarser view"):
        ImportanceMixer(view, _with_histogram(target, histogram))


def test_dga_follows_the_scores_every_so_many_steps(corpus: Corpus) -> None:
    start = Mixture.natural(corpus.domains(k=3))
    mixer = DGAMixer(start, step_size=1.0, update_every=10)
    assert mixer.mixture == start
    assert [step for step in range(31) if mixer.wants_scores(step)] == [10, 20, 30]
    mixture = mixer.update(np.log([1.0, 2.0, 1.0]))
    np.testing.assert_allclose(mixture.probabilities, [1 / 4, 2 / 4, 1 / 4])


def test_dga_goes_on_from_where_it_starts(corpus: Corpus) -> None:
    start = Mixture(corpus.domains(k=3), np.array([0.5, 0.5, 0.0]))
    mixture = DGAMixer(start, step_size=1.0).update(np.log([1.0, 3.0, 99.0]))
    np.testing.assert_allclose(mixture.probabilities, [1 / 4, 3 / 4, 0])


def test_standardized_scores_make_the_step_independent_of_their_size(corpus: Corpus) -> None:
    scores = np.array([0.1, 0.2, 0.6])
    ends = []
    for factor in (1.0, 1e-3):
        mixer = DGAMixer(Mixture.natural(corpus.domains(k=3)), step_size=0.5, score_scale="std")
        ends.append(mixer.update(factor * scores).probabilities)
    np.testing.assert_allclose(ends[0], ends[1])
    ratio = np.log(ends[0][2] / ends[0][0])
    assert ratio == pytest.approx(0.5 * 0.5 / scores.std())


def test_the_average_is_sampled_and_the_weights_go_on_alone(corpus: Corpus) -> None:
    mixer = DGAMixer(Mixture.natural(corpus.domains(k=3)), step_size=1.0, ema=0.5)
    scores = np.log([1.0, 2.0, 1.0])
    first = mixer.update(scores).probabilities
    np.testing.assert_allclose(first, (np.array([1, 1, 1]) / 3 + np.array([1, 2, 1]) / 4) / 2)
    second = mixer.update(scores).probabilities
    np.testing.assert_allclose(mixer.weights, [1 / 6, 4 / 6, 1 / 6])
    np.testing.assert_allclose(second, (first + np.array([1, 4, 1]) / 6) / 2)


def test_scores_that_are_not_finite_change_nothing_and_are_counted(corpus: Corpus) -> None:
    mixer = DGAMixer(Mixture.natural(corpus.domains(k=3)))
    before = mixer.update(np.array([0.1, 0.2, 0.3]))
    for bad in (np.nan, np.inf, -np.inf):
        assert mixer.update(np.array([0.1, bad, 0.3])) == before
    assert mixer.skipped_updates == 3


def test_empty_domains_keep_weight_0(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    mixture = DGAMixer(Mixture.natural(view)).update(np.ones(view.k))
    assert (mixture.probabilities[view.sizes == 0] == 0).all()
    np.testing.assert_allclose(mixture.probabilities, Mixture.natural(view).probabilities)


def test_a_restored_mixer_goes_on_alike(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    rng = np.random.default_rng(0)
    mixer = DGAMixer(Mixture.natural(view), ema=0.3)
    for _ in range(3):
        mixer.update(rng.normal(size=view.k))
    restored = DGAMixer(Mixture.natural(view), ema=0.3)
    restored.load_state_dict(json.loads(json.dumps(mixer.state_dict(), allow_nan=False)))
    assert restored.mixture == mixer.mixture
    scores = rng.normal(size=view.k)
    assert restored.update(scores) == mixer.update(scores)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_made(corpus: Corpus, name: str) -> None:
    mixer, blend, budget = make_mixer(
        name, corpus.domains(k=3), num_steps=50, batch_size=8, target=corpus.target("alpha")
    )
    assert mixer.mixture.view == corpus.domains(k=3)
    assert (budget is not None) == ("paced" in name)
    if budget is not None:
        assert (budget.max_passes, budget.num_steps) == (8, 50)
    if isinstance(mixer, DGAMixer):
        assert mixer.mixture == Mixture.natural(corpus.domains(k=3))
        assert mixer.step_size == (1.5 if name == "dga-paced-general" else 5.0)
        assert (mixer.ema, mixer.update_every) == (0.1 if name == "dga-ema" else 1.0, 25)
    assert blend.natural_share == (0.1 if name == "dga-paced-general" else 0.0)
    assert not blend.moves


def test_a_name_can_carry_changes(corpus: Corpus) -> None:
    settings = mixer_settings("dga-paced+step_size=2+start=importance+max_passes=none")
    assert settings == MixerSettings(method="dga", step_size=2.0, start="importance")
    mixer = make_mixer(
        settings, corpus.domains(k=12), num_steps=5, batch_size=8, target=corpus.target("alpha")
    ).mixer
    natural = Mixture.natural(corpus.domains(k=12))
    expected = importance_mixture(corpus.domains(k=12), corpus.target("alpha")).blend(natural, 0.1)
    assert mixer.mixture == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dgaa", r"no mixer 'dgaa'; choose one of natural, uniform"),
        ("dga+eta=2", r"'eta=2' .* no setting=value; the settings are step_size"),
        ("dga+start", r"'start' .* no setting=value"),
        ("dga+start=here", r"choose one of natural, importance, uniform"),
        ("dga+ema=some", r"'some' is no number"),
    ],
)
def test_names_that_mean_nothing_are_explained(name: str, message: str) -> None:
    with pytest.raises(UnknownMixerError, match=message):
        mixer_settings(name)


@pytest.mark.parametrize("name", ["importance", "dga", "uniform+importance_share=0.5"])
def test_a_missing_target_is_explained(corpus: Corpus, name: str) -> None:
    with pytest.raises(UnknownMixerError, match="--target NAME"):
        make_mixer(name, corpus.domains(k=3), num_steps=5, batch_size=8)


@pytest.mark.parametrize(
    "setting",
    [
        {"step_size": -1.0},
        {"update_every": 0},
        {"ema": 0.0},
        {"ema": 1.5},
        {"score_scale": "log"},
    ],
)
def test_settings_out_of_range_are_refused(corpus: Corpus, setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}={setting[name]!r}"):
        DGAMixer(Mixture.natural(corpus.domains(k=3)), **setting)


def _with_histogram(target: object, histogram: np.ndarray) -> object:
    from dataclasses import replace

    return replace(target, leaf_histogram=histogram)  # type: ignore[type-var]
