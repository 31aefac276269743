"""Mixers by name: presets, names that carry changes, and what is said when something is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline import Corpus, Mixture, MixtureError
from trainer.mixers import (
    PRESETS,
    VARIED,
    DGAMixer,
    DistributionMixer,
    MixerSettings,
    Restraint,
    UnknownMixerError,
    basis_mixtures,
    importance_mixture,
    make_mixer,
    measuring_changes,
    mixer_settings,
)


def make(corpus: Corpus, mixer: str | MixerSettings, k: int = 3, **more: Any) -> Any:
    given = {"num_steps": 50, "batch_size": 8, "target": corpus.target("alpha"), "capacity": 1e9}
    given |= more
    return make_mixer(mixer, corpus, corpus.domains(k=k), **given)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "schedule"])
def test_every_preset_can_be_made(corpus: Corpus, name: str) -> None:
    basis = basis_mixtures(corpus, corpus.domains(k=3), "alpha")
    made = make(corpus, name, basis=basis, learning_rate=lambda step: 1e-3)
    mixer, blend, budget, restraint = made
    assert mixer.mixture_at(0).view == corpus.domains(k=3)
    six = ("importance-fading", "importance-general")
    passes = 6 if name in six else 8 if "paced" in name else None
    assert (budget.max_passes if budget else None) == passes
    assert budget is None or budget.num_steps == 50
    if isinstance(mixer, DGAMixer):
        assert mixer.mixture_at(0) == Mixture.natural(corpus.domains(k=3))
        assert mixer.step_size == (1.5 if name == "dga-paced-general" else 5.0)
        assert (mixer.ema, mixer.update_every) == (0.1 if name == "dga-ema" else 1.0, 25)
    assert mixer.signal == PRESETS[name].signal
    assert mixer.wants_scores(25) == (mixer.signal != "nothing")
    assert restraint == (Restraint(share=1, passes=1) if name == "importance-fading" else None)
    reserve = {"dga-paced-general": 0.1, "importance-fading": 0.3, "importance-general": 0.93}
    assert blend.natural_share == reserve.get(name, 0.0)
    assert blend.moves == (name in six)


@pytest.mark.parametrize(
    "name",
    [name for name, made in PRESETS.items() if not made.reads_histogram and name != "schedule"],
)
def test_who_reads_no_histogram_takes_a_target_that_has_none(
    corpus: Corpus, numbered_corpus: Corpus, name: str
) -> None:
    """All of its text lies in a domain without samples, which importance sampling refuses."""
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    histogram = np.zeros(view.k)
    histogram[np.argmin(view.sizes)] = 1
    target = replace(corpus.target("alpha"), leaf_histogram=histogram)
    run: dict[str, Any] = {"num_steps": 50, "batch_size": 8, "target": target}
    with pytest.raises(MixtureError, match="coarser view"):
        make_mixer("importance", numbered_corpus, view, **run)
    made = make_mixer(name, numbered_corpus, view, **run, learning_rate=lambda step: 1e-3)
    assert made.mixer.mixture_at(0).view == view


def test_a_name_can_carry_changes(corpus: Corpus) -> None:
    settings = mixer_settings("dga-paced+step_size=2+start=importance+max_passes=none")
    assert settings == MixerSettings(method="dga", step_size=2.0, start="importance")
    view = corpus.domains(k=12)
    natural = Mixture.natural(view)
    expected = importance_mixture(view, corpus.target("alpha")).blend(natural, 0.1)
    assert make(corpus, settings, k=12).mixer.mixture_at(0) == expected


def test_a_name_can_say_how_alignment_is_measured() -> None:
    name = "dga-paced+shrinkage=tree+step_size=2+half_life=200"
    assert measuring_changes(name) == {"shrinkage": "tree", "half_life": 200.0}
    assert mixer_settings(name) == mixer_settings("dga-paced+step_size=2")
    assert measuring_changes("dga+step_size=2") == {}


def test_what_a_setting_belongs_to_is_what_uses_it() -> None:
    assert "update_every" in mixer_settings("importance-fading").uses
    assert (
        "update_every" in mixer_settings("natural+max_passes=2+repeat_decay=1+update_every=9").uses
    )
    assert "update_every" not in mixer_settings("importance-paced").uses
    for name, settings in PRESETS.items():
        moves = settings.blend_moves
        assert moves == (name in ("importance-fading", "importance-general"))
        assert set(settings.uses) <= set(VARIED)


def test_the_basis_is_the_target_first_and_whatever_is_named(corpus: Corpus) -> None:
    view = corpus.domains(k=12)
    assert list(basis_mixtures(corpus, view, "beta")) == ["beta", "alpha", "natural"]
    basis = basis_mixtures(corpus, view, "alpha", ("natural",))
    assert list(basis) == ["alpha", "natural"]
    mixer = make(corpus, "dga-distributions", k=12, basis=basis).mixer
    assert isinstance(mixer, DistributionMixer)
    halves = basis["alpha"].blend(basis["natural"], 0.5)
    np.testing.assert_allclose(mixer.mixture_at(0).probabilities, halves.probabilities)
    warm = make(corpus, "dga-distributions+start=importance+start_share=0.2", k=12, basis=basis)
    assert warm.mixer.details()["basis_weights"] == pytest.approx({"alpha": 0.9, "natural": 0.1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dgaa", r"no mixer 'dgaa'; choose one of natural, uniform"),
        ("dga+eta=2", r"'eta=2' .* no setting=value; the settings are step_size"),
        ("dga+start", r"'start' .* no setting=value"),
        ("dga+start=here", r"choose one of natural, importance, uniform"),
        ("dga+ema=some", r"'some' is no number"),
        (
            "natural+step_size=2",
            r"step_size changes nothing in .*'natural\+step_size=2': it belongs to dga",
        ),
        (
            "importance+repeat_decay=1",
            r"repeat_decay changes nothing .* takes a bound .*, max_passes",
        ),
        ("dga+start_share=0.2", r"start_share changes nothing .* it takes start=importance"),
        (
            "importance+restraint=capacity",
            r"restraint changes nothing .* takes a bound .*, max_passes",
        ),
        ("importance+update_every=5", r"update_every changes nothing .* it learns nothing"),
        ("dga+histogram=smoothed", r"histogram changes nothing .* looks at no histogram"),
        ("dga+continue_from=average", r"continue_from changes nothing .* ema below 1"),
        ("odm+shrinkage=tree", r"shrinkage changes nothing .* which measures no alignment"),
        ("dga+shrinkage=leaf", r"choose one of none, tree"),
    ],
)
def test_names_that_mean_nothing_are_explained(name: str, message: str) -> None:
    with pytest.raises(UnknownMixerError, match=message):
        mixer_settings(name)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("natural_share=2", "between 0 and 1"),
        ("natural_share_end=-0.1", "between 0 and 1"),
        ("importance_share=nan", "between 0 and 1"),
        ("start=importance+start_share=2", "between 0 and 1"),
        ("step_size=-1", "0 or more"),
        ("max_passes=2+repeat_decay=-1", "0 or more"),
        ("ema=0", "above 0 and at most 1"),
        ("update_every=0", "at least 1 step"),
        ("max_passes=0", "above 0; none is no bound"),
        ("max_passes=inf", "above 0; none is no bound"),
    ],
)
def test_settings_out_of_range_are_explained(change: str, rule: str) -> None:
    field, _, value = change.rpartition("+")[2].partition("=")
    with pytest.raises(UnknownMixerError, match=f"{field}={float(value):g}.* 'dga' must .*{rule}"):
        mixer_settings(f"dga+{change}")
    with pytest.raises(
        UnknownMixerError, match=r"bregman=0\.0 of the mixer 'doge' must be above 0"
    ):
        mixer_settings("doge+bregman=0")


@pytest.mark.parametrize(
    "setting",
    [
        {"method": "dgaa"},
        {"start": "Natural"},
        {"toward": "everyone"},
        {"histogram": "smooth"},
        {"replay": "frozen"},
        {"restraint": "some"},
        {"surplus": "rest"},
        {"score_scale": "deviations"},
        {"continue_from": "start"},
    ],
)
def test_words_that_no_setting_knows_are_explained(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(UnknownMixerError, match=f"{name}='{value}' of the mixer .* be one of "):
        MixerSettings(**{"method": "dga", **setting})


def test_a_presets_bound_can_be_taken_off(corpus: Corpus) -> None:
    for name in ("importance-fading", "importance-general"):
        made = make(corpus, f"{name}+max_passes=none")
        assert made.budget is None
        assert made.blend.repeat_decay == 0, "there is nothing to measure repeats against"
        assert made.blend.moves


@pytest.mark.parametrize(
    "name",
    [
        "importance",
        "dga",
        "doge",
        "doge+toward=all+start=importance",
        "uniform+importance_share=0.5",
    ],
)
def test_a_missing_target_is_explained(corpus: Corpus, name: str) -> None:
    with pytest.raises(UnknownMixerError, match="--target NAME"):
        make(corpus, name, target=None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("schedule", "--weights-file"),
        ("doge", "learning_rate=…"),
        ("dga-distributions", "basis=basis_mixtures"),
    ],
)
def test_whatever_else_is_missing_is_named(corpus: Corpus, name: str, message: str) -> None:
    with pytest.raises(UnknownMixerError, match=message):
        make(corpus, name)
