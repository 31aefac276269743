"""A target's histogram guessed from few examples, against hand-made counts and against a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln

from pipeline import Corpus, View
from pipeline.corpus.view import DomainTree
from pipeline.storage.ranges import DomainRanges
from tests.trainer.test_presets import make
from trainer.mixers import basis_mixtures, importance_mixture, smoothed_target
from trainer.mixers.smoothing import smoothed_histogram
from trainer.targets import TargetMix, steering_target


def nested(sizes: NDArray[np.int64], *granularities: int) -> list[View]:
    """Views of leaves with these sizes, halved from the root down."""
    tree = DomainTree(
        corpus_fingerprint="any",
        levels=(1, len(sizes)),
        leaves=DomainRanges(np.concatenate([[0], np.cumsum(sizes)])[None]),
        split_order=halvings(len(sizes)),
    )
    return [tree.view(k=k) for k in granularities]


def halvings(leaves: int) -> NDArray[np.int64]:
    """Boundaries in the order in which a range is halved again and again; `leaves` is a power of two."""
    steps = [leaves >> level for level in range(1, leaves.bit_length())]
    return np.concatenate([np.arange(step, leaves, 2 * step) for step in steps])


def test_one_level_is_drawn_to_the_corpus_with_the_likeliest_strength() -> None:
    sizes = np.array([10, 20, 30, 40])
    counts, natural = np.array([6.0, 1.0, 0.0, 3.0]), sizes / 100
    strengths = np.exp(np.linspace(-6, 8, 20_001))
    prior = strengths[:, None] * natural
    likelihood = (gammaln(counts + prior) - gammaln(prior)).sum(1)
    likelihood -= gammaln(10 + strengths) - gammaln(strengths)
    best = strengths[np.argmax(likelihood)]
    assert 1 < best < 20  # the counts speak neither for the corpus alone nor for themselves
    found = smoothed_histogram(nested(sizes, 1, 4), counts)
    np.testing.assert_allclose(found, (counts + best * natural) / (10 + best), atol=0.005)


def test_what_looks_like_the_corpus_is_taken_for_it() -> None:
    sizes = np.array([10, 20, 30, 40])
    found = smoothed_histogram(nested(sizes, 1, 4), np.array([1.0, 2.0, 2.0, 4.0]))
    np.testing.assert_allclose(found, sizes / 100, atol=0.002)


def test_a_branch_that_stands_out_is_followed_and_not_told_apart_further() -> None:
    views = nested(np.array([30, 10, 500, 500]), 1, 2, 4)
    found = smoothed_histogram(views, np.array([9.0, 3.0, 0.0, 0.0]))
    assert found[:2].sum() > 0.95
    assert found[0] / found[1] == pytest.approx(3, rel=0.01)
    assert found.sum() == pytest.approx(1)


def test_nothing_is_left_of_the_corpus_where_examples_are_many() -> None:
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(64, 0.3))
    counts = rng.multinomial(1_000_000, truth).astype(float)
    found = smoothed_histogram(nested(rng.integers(1, 50, 64), 1, 4, 16, 64), counts)
    np.testing.assert_allclose(found, counts / counts.sum(), atol=2e-5)


def test_a_leaf_without_samples_gets_nothing() -> None:
    views = nested(np.array([5, 0, 0, 0, 7, 9, 0, 4]), 1, 2, 4, 8)
    found = smoothed_histogram(views, np.array([1.0, 4.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0]))
    assert found.sum() == pytest.approx(1)
    assert (found[[1, 2, 3, 6]] == 0).all()
    assert (found[[0, 4, 5, 7]] > 0).all()
    assert found[0] > 0.8  # for all that lies in its branch


def test_few_examples_come_nearer_to_a_truth_that_follows_the_tree() -> None:
    rng = np.random.default_rng(1)
    views = nested(rng.integers(1, 60, 256), 1, 4, 16, 64, 256)
    distances = []
    for _ in range(40):
        truth = drawn_truth(views, rng)
        counts = rng.multinomial(8, truth).astype(float)
        found = smoothed_histogram(views, counts)
        distances.append([np.abs(guess - truth).sum() / 2 for guess in (counts / 8, found)])
    counted, smoothed = np.mean(distances, axis=0)
    assert smoothed < 0.75 * counted


def drawn_truth(views: list[View], rng: np.random.Generator) -> NDArray[np.float64]:
    """Concentrated on the first levels, natural below."""
    shares = np.ones(1)
    for coarse, fine, strength in zip(views, views[1:], (1.0, 2.0, 1e4, 1e4), strict=False):
        parents = fine.parents_in(coarse)
        prior = strength * fine.sizes / coarse.sizes[parents]
        gammas = rng.gamma(np.maximum(prior, 1e-3))
        shares = shares[parents] * gammas / np.bincount(parents, gammas)[parents]
    return shares / shares.sum()


def test_counts_are_the_documents_of_the_target(corpus: Corpus) -> None:
    """A histogram of the same shares says more, the more documents it was counted from."""
    target = corpus.target("alpha")
    few = smoothed_target(corpus, target)
    assert few.leaf_histogram.sum() == pytest.approx(1)
    scaled = replace(target, leaf_histogram=7 * target.leaf_histogram)
    np.testing.assert_allclose(smoothed_target(corpus, scaled).leaf_histogram, few.leaf_histogram)
    entry = next(entry for entry in corpus.manifest.targets if entry.name == "alpha")
    views = [corpus.domains(k=k) for k in (1, 3, 4, 12)]
    counts = target.leaf_histogram * entry.train_documents
    np.testing.assert_allclose(few.leaf_histogram, smoothed_histogram(views, counts))


def test_several_sets_are_smoothed_each_by_itself(corpus: Corpus) -> None:
    mix = smoothed_target(corpus, steering_target(corpus, "alpha=0.7+beta=0.3"))
    assert isinstance(mix, TargetMix)
    alone = [smoothed_target(corpus, corpus.target(name)) for name in ("alpha", "beta")]
    expected = 0.7 * alone[0].leaf_histogram + 0.3 * alone[1].leaf_histogram
    np.testing.assert_allclose(mix.leaf_histogram, expected)


@pytest.mark.parametrize("mixer", ["importance-fading", "importance-ratio+histogram=smoothed"])
def test_a_mixer_sees_what_it_is_set_to_see(corpus: Corpus, mixer: str) -> None:
    view = corpus.domains(k=12)
    target = corpus.target("alpha")
    counted, smoothed = (
        importance_mixture(view, seen).probabilities
        for seen in (target, smoothed_target(corpus, target))
    )
    assert np.abs(counted - smoothed).sum() > 0.01
    if mixer.startswith("importance-ratio"):
        smoothed = smoothed / view.sizes / (smoothed / view.sizes).sum()
    found = make(corpus, mixer, k=12).mixer.mixture_at(0).probabilities
    np.testing.assert_allclose(found, smoothed)


def test_a_basis_is_smoothed_where_it_is_asked_for(corpus: Corpus) -> None:
    view = corpus.domains(k=12)
    basis = basis_mixtures(corpus, view, "alpha", histogram="smoothed")
    for name in ("alpha", "beta"):
        expected = importance_mixture(view, smoothed_target(corpus, corpus.target(name)))
        assert basis[name] == expected
