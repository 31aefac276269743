"""Mixers: what each of them samples, what they keep over a stop, and their names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline import Corpus, Mixture, MixtureError
from trainer.mixers import (
    PRESETS,
    DGAMixer,
    ImportanceMixer,
    UnknownMixerError,
    make_mixer,
)


def test_importance_is_the_targets_histogram(corpus: Corpus) -> None:
    coarse = ImportanceMixer(corpus.domains(k=3), corpus.target("alpha")).mixture
    np.testing.assert_allclose(coarse.probabilities, [0, 1, 0])
    fine = ImportanceMixer(corpus.domains(k=12), corpus.target("alpha"), natural_share=0.5).mixture
    natural = Mixture.natural(corpus.domains(k=12)).probabilities
    np.testing.assert_allclose(fine.probabilities[:4], natural[:4] / 2)
    np.testing.assert_allclose(fine.probabilities[4:8], natural[4:8] / 2 + 1 / 8)


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


def test_dga_starts_from_natural_and_follows_the_scores(corpus: Corpus) -> None:
    view = corpus.domains(k=3)
    mixer = DGAMixer(view, step_size=1.0, update_every=10)
    assert mixer.mixture == Mixture.natural(view)
    assert [step for step in range(31) if mixer.wants_scores(step)] == [10, 20, 30]
    mixture = mixer.update(np.log([1.0, 2.0, 1.0]))
    np.testing.assert_allclose(mixture.probabilities, [1 / 4, 2 / 4, 1 / 4])


def test_the_average_is_sampled_and_the_weights_go_on_alone(corpus: Corpus) -> None:
    mixer = DGAMixer(corpus.domains(k=3), step_size=1.0, ema=0.5)
    scores = np.log([1.0, 2.0, 1.0])
    first = mixer.update(scores).probabilities
    np.testing.assert_allclose(first, (np.array([1, 1, 1]) / 3 + np.array([1, 2, 1]) / 4) / 2)
    second = mixer.update(scores).probabilities
    np.testing.assert_allclose(mixer.weights, [1 / 6, 4 / 6, 1 / 6])
    np.testing.assert_allclose(second, (first + np.array([1, 4, 1]) / 6) / 2)


def test_a_share_is_reserved_for_natural_proportions(corpus: Corpus) -> None:
    view = corpus.domains(k=12)
    mixer = DGAMixer(view, step_size=1.0, natural_share=0.1)
    scores = np.zeros(12)
    scores[5] = 1000.0
    mixture = mixer.update(scores)
    assert mixture.probabilities.min() >= 0.1 * Mixture.natural(view).probabilities.min()
    assert mixture.probabilities[5] > 0.9


def test_scores_that_are_not_finite_change_nothing_and_are_counted(corpus: Corpus) -> None:
    mixer = DGAMixer(corpus.domains(k=3))
    before = mixer.update(np.array([0.1, 0.2, 0.3]))
    for bad in (np.nan, np.inf, -np.inf):
        assert mixer.update(np.array([0.1, bad, 0.3])) == before
    assert mixer.skipped_updates == 3


def test_empty_domains_keep_weight_0(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    mixture = DGAMixer(view).update(np.ones(view.k))
    assert (mixture.probabilities[view.sizes == 0] == 0).all()
    np.testing.assert_allclose(mixture.probabilities, Mixture.natural(view).probabilities)


def test_a_restored_mixer_goes_on_alike(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    rng = np.random.default_rng(0)
    mixer = DGAMixer(view, ema=0.3, natural_share=0.1)
    for _ in range(3):
        mixer.update(rng.normal(size=view.k))
    restored = DGAMixer(view, ema=0.3, natural_share=0.1)
    restored.load_state_dict(json.loads(json.dumps(mixer.state_dict(), allow_nan=False)))
    assert restored.mixture == mixer.mixture
    scores = rng.normal(size=view.k)
    assert restored.update(scores) == mixer.update(scores)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_made(corpus: Corpus, name: str) -> None:
    mixer, budget = make_mixer(
        name, corpus.domains(k=3), num_steps=50, target=corpus.target("alpha")
    )
    assert mixer.mixture.view == corpus.domains(k=3)
    assert (budget is not None) == ("paced" in name)
    if budget is not None:
        assert (budget.max_passes, budget.num_steps) == (8, 50)
    if isinstance(mixer, DGAMixer):
        expected = (1.5, 0.1) if name == "dga-paced-general" else (5.0, 0.0)
        assert (mixer.step_size, mixer.natural_share) == expected
        assert (mixer.ema, mixer.update_every) == (0.1 if name == "dga-ema" else 1.0, 25)


def test_names_and_missing_targets_are_explained(corpus: Corpus) -> None:
    view = corpus.domains(k=3)
    with pytest.raises(UnknownMixerError, match=r"no mixer 'dgaa'; choose one of natural, uniform"):
        make_mixer("dgaa", view, num_steps=5)
    with pytest.raises(UnknownMixerError, match="--target NAME"):
        make_mixer("importance", view, num_steps=5)


@pytest.mark.parametrize(
    "setting",
    [{"step_size": -1.0}, {"update_every": 0}, {"ema": 0.0}, {"ema": 1.5}, {"natural_share": 2.0}],
)
def test_settings_out_of_range_are_refused(corpus: Corpus, setting: dict[str, float]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}={setting[name]}"):
        DGAMixer(corpus.domains(k=3), **setting)


def _with_histogram(target: object, histogram: np.ndarray) -> object:
    from dataclasses import replace

    return replace(target, leaf_histogram=histogram)  # type: ignore[type-var]
