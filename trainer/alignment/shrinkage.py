"""Tree shrinkage: noisy means at the leaves, each drawn to its parent as far as its evidence is weak.

    θ_v = θ_parent(v) + N(0, τ²_level(v)),   root flat        what the scores are like
    y   = θ_leaf + N(0, σ²)                                   one observation

Posterior means by one pass up and one down the tree, which is exact; τ² and σ² by EM around it. So a
domain follows its own observations where there are many and its neighbors' where there are few: the
granularity adapts to the evidence. docs/shrinkage.md derives every line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import View

Floats = NDArray[np.float64]

_MOST_ROUNDS = 200


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tree:
    """Levels of nodes, from the root, which is alone on its level, to the leaves."""

    parents: tuple[NDArray[np.int64], ...]
    """For each level below the root, shape (nodes,): the index of each node's parent one level up."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes per level, from the root's 1."""
        return (1, *(len(parents) for parents in self.parents))

    @classmethod
    def of_views(cls, views: Sequence[View]) -> Tree:
        """Views of one corpus, from one domain to the finest."""
        pairs = zip(views[1:], views[:-1], strict=True)
        return cls(parents=tuple(finer.parents_in(coarser) for finer, coarser in pairs))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """What was observed at the leaves; arrays are float64 (leaves,)."""

    counts: Floats
    """Effective number of observations; 0 where there are none."""
    means: Floats
    """Their mean; anything finite where there are none."""
    scatter: Floats
    """Their squared distances from that mean, added up; its expectation is (count - 1) σ²."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Variances:
    """The two kinds of variance."""

    noise: float
    """σ², of one observation around its leaf's mean."""
    spread: tuple[float, ...]
    """τ² of each level below the root: of a node around its parent."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Posterior:
    """What is believed of each node's mean, level by level from the root: float64 (nodes,) each."""

    means: tuple[Floats, ...]
    variances: tuple[Floats, ...]
    """Infinite everywhere when nothing was observed; the means are 0 then."""


def shrink(
    tree: Tree, evidence: Evidence, start: Variances | None = None
) -> tuple[Posterior, Variances | None]:
    """Estimate the variances and with them the posterior.

    EM goes on from `start`, for instance the variances of an earlier call. Where the means of the leaves do
    not differ, or nothing was observed, no node is told apart whatever the variances are: it returns `start`,
    since EM would end in variances of 0, which no later evidence leads away from.
    """
    seen_tree, seen = _observed_part(tree, evidence)
    if not len(seen.means) or not np.ptp(seen.means) > 0:
        any_variances = Variances(noise=1.0, spread=(0.0,) * len(tree.parents))
        return posterior(tree, evidence, start or any_variances), start
    variances = start or _first_variances(seen_tree, seen)
    for _ in range(_MOST_ROUNDS):
        before, variances = variances, _em_round(seen_tree, seen, variances)
        if _settled(before, variances):
            break
    return posterior(tree, evidence, variances), variances


def posterior(tree: Tree, evidence: Evidence, variances: Variances) -> Posterior:
    """The exact posterior of every node's mean given all observations and the variances."""
    return _downward(tree, _upward(tree, evidence, variances), variances)


def _first_variances(tree: Tree, evidence: Evidence) -> Variances:
    """Moments to start from: the scatter for σ², what is left of the means' variance for τ²."""
    counts, means, levels = evidence.counts, evidence.means, len(tree.parents)
    total = float(means.var())
    freedom = float((counts - 1).clip(min=0).sum())
    noise = float(evidence.scatter.sum()) / freedom if freedom > 0.5 else total
    noise = max(noise, 1e-6 * total)
    left = max(total - noise * float((1 / counts).mean()), 0.1 * total, 1e-6 * noise)
    return Variances(noise=noise, spread=(left / levels,) * levels)


def _upward(tree: Tree, evidence: Evidence, variances: Variances) -> list[tuple[Floats, Floats]]:
    """Precision and mean of each node's θ by the observations below it alone, from the root down."""
    result = [(evidence.counts / variances.noise, evidence.means)]
    levels = [*zip(tree.parents, variances.spread, tree.sizes[:-1], strict=True)]
    for parents, spread, nodes in reversed(levels):
        precision, mean = result[-1]
        message = precision / (1 + precision * spread)
        total = np.bincount(parents, message, nodes).astype(np.float64)
        weighted = np.bincount(parents, message * mean, nodes)
        pooled = np.divide(weighted, total, out=np.zeros(nodes), where=total > 0)
        result.append((total, pooled))
    return result[::-1]


def _downward(tree: Tree, upward: list[tuple[Floats, Floats]], variances: Variances) -> Posterior:
    """Join what the observations below each node say with what its parent hears from all others."""
    precision, mean = upward[0]
    if not precision[0] > 0:
        return Posterior(
            means=tuple(np.zeros(size) for size in tree.sizes),
            variances=tuple(np.full(size, np.inf) for size in tree.sizes),
        )
    means, spreads = [mean], [1 / precision]
    for parents, spread, (precision, mean) in zip(
        tree.parents, variances.spread, upward[1:], strict=True
    ):
        own = _own_weight(precision, spread)
        means.append(own * mean + (1 - own) * means[-1][parents])
        spreads.append((1 - own) * spread + (1 - own) ** 2 * spreads[-1][parents])
    return Posterior(means=tuple(means), variances=tuple(spreads))


def _own_weight(precision: Floats, spread: float) -> Floats:
    """Share of a node's own evidence in its posterior mean given its parent's."""
    return precision * spread / (1 + precision * spread)


def _observed_part(tree: Tree, evidence: Evidence) -> tuple[Tree, Evidence]:
    """The tree without nodes that have no observation below them: they say nothing of the variances.

    At 262,144 leaves of which few are observed this is what EM's time goes by.
    """
    nodes, parents = np.flatnonzero(evidence.counts > 0), []
    seen = Evidence(
        counts=evidence.counts[nodes], means=evidence.means[nodes], scatter=evidence.scatter[nodes]
    )
    for level in reversed(tree.parents):
        nodes, index = np.unique(level[nodes], return_inverse=True)
        parents.append(index.astype(np.int64))
    return Tree(parents=tuple(reversed(parents))), seen


def _em_round(tree: Tree, evidence: Evidence, variances: Variances) -> Variances:
    """One step of EM: each variance becomes its expectation under the posterior."""
    upward = _upward(tree, evidence, variances)
    believed = _downward(tree, upward, variances)
    spreads = []
    for level, (parents, spread) in enumerate(zip(tree.parents, variances.spread, strict=True)):
        precision, mean = upward[level + 1]
        own = _own_weight(precision, spread)
        from_parent = (mean - believed.means[level][parents]) ** 2
        squared = own**2 * (from_parent + believed.variances[level][parents]) + (1 - own) * spread
        spreads.append(float(squared.mean()))
    around = (evidence.means - believed.means[-1]) ** 2 + believed.variances[-1]
    squares = (evidence.scatter + evidence.counts * around).sum()
    return Variances(noise=float(squares / evidence.counts.sum()), spread=tuple(spreads))


def _settled(before: Variances, after: Variances) -> bool:
    """Whether no variance still changes by a thousandth, those next to nothing aside."""
    first, second = (np.array([v.noise, *v.spread]) for v in (before, after))
    return bool((np.abs(second - first) < 1e-3 * second + 1e-5 * second.sum()).all())
