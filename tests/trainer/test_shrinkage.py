"""Tree shrinkage against brute-force conditioning and against truth that was simulated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.alignment.shrinkage import Evidence, Tree, Variances, posterior, shrink


def regular_tree(*branching: int) -> Tree:
    nodes, parents = 1, []
    for children in branching:
        parents.append(np.repeat(np.arange(nodes), children))
        nodes *= children
    return Tree(parents=tuple(parents))


def simulated(
    tree: Tree, variances: Variances, counts: NDArray[np.int64], seed: int
) -> tuple[list[NDArray[np.float64]], Evidence]:
    """True means of all levels, and what `counts` observations of each leaf show of them."""
    rng = np.random.default_rng(seed)
    truth = [np.array([rng.normal(0, 3)])]
    for parents, spread in zip(tree.parents, variances.spread, strict=True):
        truth.append(truth[-1][parents] + rng.normal(0, np.sqrt(spread), len(parents)))
    leaf = np.repeat(np.arange(len(counts)), counts)
    seen = truth[-1][leaf] + rng.normal(0, np.sqrt(variances.noise), len(leaf))
    means = np.bincount(leaf, seen, len(counts)) / np.maximum(counts, 1)
    scatter = np.bincount(leaf, (seen - means[leaf]) ** 2, len(counts))
    return truth, Evidence(counts=counts.astype(float), means=means, scatter=scatter)


def conditioned(
    tree: Tree, evidence: Evidence, variances: Variances
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and variances of all nodes by the textbook: one large normal distribution, inverted.

    The root's flat prior leaves its precision at what its children say.
    """
    first = np.cumsum([0, *tree.sizes])
    precision, linear = np.zeros((first[-1], first[-1])), np.zeros(first[-1])
    for level, (parents, spread) in enumerate(zip(tree.parents, variances.spread, strict=True)):
        for node, parent in enumerate(parents):
            v, p = first[level + 1] + node, first[level] + parent
            precision[[v, p], [v, p]] += 1 / spread
            precision[[v, p], [p, v]] -= 1 / spread
    leaves = np.arange(first[-2], first[-1])
    precision[leaves, leaves] += evidence.counts / variances.noise
    linear[leaves] = evidence.counts * evidence.means / variances.noise
    covariance = np.linalg.inv(precision)
    return covariance @ linear, covariance.diagonal()


@given(
    seed=st.integers(0, 2**32 - 1),
    branching=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    noise=st.floats(0.1, 10),
)
def test_two_passes_are_exact_conditioning(seed: int, branching: list[int], noise: float) -> None:
    tree, rng = regular_tree(*branching), np.random.default_rng(seed)
    variances = Variances(noise=noise, spread=tuple(rng.uniform(0.1, 3, len(branching))))
    counts = rng.integers(0, 4, len(tree.parents[-1]))
    counts[rng.integers(len(counts))] = 1
    _, evidence = simulated(tree, variances, counts, seed)
    believed = posterior(tree, evidence, variances)
    means, spreads = conditioned(tree, evidence, variances)
    np.testing.assert_allclose(np.concatenate(believed.means), means, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.concatenate(believed.variances), spreads, rtol=1e-10)


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0, 100.0])
def test_it_beats_every_fixed_granularity_at_every_noise(noise: float) -> None:
    tree = regular_tree(8, 8, 8)
    true = Variances(noise=noise, spread=(1.0, 0.5, 0.25))
    errors = []
    for seed in range(16):
        counts = np.random.default_rng(seed).integers(1, 6, 512)
        truth, evidence = simulated(tree, true, counts, seed)
        of, guesses = np.arange(512), [evidence.means]
        for parents in reversed(tree.parents):
            of = parents[of]
            pooled = np.bincount(of, counts * evidence.means) / np.bincount(of, counts)
            guesses.append(pooled[of])
        guesses.append(posterior(tree, evidence, true).means[-1])
        guesses.append(shrink(tree, evidence)[0].means[-1])
        errors.append([np.mean((guess - truth[-1]) ** 2) for guess in guesses])
    *fixed, known, mine = np.mean(errors, axis=0)
    assert mine < min(fixed)
    assert mine < 1.2 * known, "estimating the variances costs little beside knowing them"


@pytest.mark.parametrize("spread", [(1.0, 0.5, 0.25), (0.1, 2.0, 0.5), (1.0, 0.0, 0.5)])
def test_it_recovers_the_variances(spread: tuple[float, ...]) -> None:
    tree = regular_tree(40, 10, 8)
    counts = np.random.default_rng(1).integers(1, 9, 3200)
    _, evidence = simulated(tree, Variances(noise=2.0, spread=spread), counts, 7)
    _, found = shrink(tree, evidence)
    assert found is not None
    assert found.noise == pytest.approx(2.0, rel=0.05)
    np.testing.assert_allclose(found.spread, spread, rtol=0.35, atol=0.05)


def test_the_order_of_leaves_is_irrelevant() -> None:
    tree, rng = regular_tree(4, 5, 6), np.random.default_rng(2)
    counts = rng.integers(0, 5, 120)
    _, evidence = simulated(tree, Variances(noise=1.0, spread=(1.0, 1.0, 1.0)), counts, 3)
    order = rng.permutation(120)
    shuffled_tree = Tree(parents=(*tree.parents[:-1], tree.parents[-1][order]))
    shuffled = Evidence(
        counts=evidence.counts[order],
        means=evidence.means[order],
        scatter=evidence.scatter[order],
    )
    one, other = shrink(tree, evidence)[0], shrink(shuffled_tree, shuffled)[0]
    np.testing.assert_allclose(other.means[-1], one.means[-1][order], rtol=1e-8)
    np.testing.assert_allclose(other.means[1], one.means[1], rtol=1e-8)


def test_a_leaf_without_observations_is_its_parent() -> None:
    tree = regular_tree(3, 2)
    variances = Variances(noise=1.0, spread=(1.0, 1.0))
    counts = np.array([5, 5, 4, 0, 0, 0])
    _, evidence = simulated(tree, variances, counts, 0)
    believed = posterior(tree, evidence, variances)
    assert believed.means[2][3] == believed.means[1][1]
    assert believed.means[2][4] == believed.means[1][2] == believed.means[0][0]
    assert believed.variances[2][4] > believed.variances[2][3] > believed.variances[2][2]


def test_nothing_observed_is_nothing_known() -> None:
    tree, zeros = regular_tree(3, 2), np.zeros(6)
    believed, variances = shrink(tree, Evidence(counts=zeros, means=zeros, scatter=zeros))
    assert all((means == 0).all() for means in believed.means)
    assert all(np.isinf(variances).all() for variances in believed.variances)
    assert variances is None


@pytest.mark.parametrize("branching", [(), (3, 2), (4, 4)])
@pytest.mark.parametrize("count", [0.5, 2.0, 9.0])
def test_equal_observations_are_believed_as_they_are(
    branching: tuple[int, ...], count: float
) -> None:
    tree = regular_tree(*branching)
    counts, twos = np.full(tree.sizes[-1], count), np.full(tree.sizes[-1], 2.0)
    equal = Evidence(counts=counts, means=twos, scatter=np.zeros(tree.sizes[-1]))
    for start in (None, Variances(noise=3.0, spread=(1.0,) * len(branching))):
        believed, variances = shrink(tree, equal, start)
        np.testing.assert_allclose(believed.means[-1], 2.0)
        assert variances == start, "they say nothing of the variances"


def test_going_on_from_earlier_variances_ends_where_a_fresh_start_does() -> None:
    tree, counts = regular_tree(16, 8), np.full(128, 6)
    _, evidence = simulated(tree, Variances(noise=1.0, spread=(1.0, 1.0)), counts, 5)
    fresh, variances = shrink(tree, evidence)
    again, _ = shrink(tree, evidence, variances)
    np.testing.assert_allclose(again.means[-1], fresh.means[-1], atol=0.01)
