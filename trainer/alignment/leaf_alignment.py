"""Alignment scores of domains out of what is known of their leaves, as it is or shrunk over the tree."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import Corpus, View
from trainer.alignment.leaf_scores import LeafScores
from trainer.alignment.shrinkage import Tree, Variances, shrink

Shrinkage = Literal["none", "tree"]

_BRANCHING = 4


class LeafAlignment:
    """Scores of a view's domains out of observations of samples.

    With shrinkage `tree` each leaf's mean is drawn towards its neighbors' as `shrinkage.py` says, and a
    domain's score is the mean over its samples of what is believed of their leaves. With `none` it is the
    mean of the domain's own observations. Scores that are not finite are not kept, and the next reading
    is not finite either, so that a mixer skips it.
    """

    def __init__(
        self,
        corpus: Corpus,
        view: View,
        *,
        half_life: float,
        shrinkage: Shrinkage,
        basis: NDArray[np.float64] | None = None,
    ) -> None:
        """`basis` (N, k) makes scores of N histograms out of those of the domains."""
        self._basis = basis
        views = nested_views(corpus)
        self._leaves = LeafScores(views[-1], half_life=half_life)
        self._spoiled = False
        self._view = view
        self._leaf_sizes = views[-1].sizes.astype(np.float64)
        self._tree = Tree.of_views(views) if shrinkage == "tree" else None
        self._variances: Variances | None = None

    def observe(self, step: int, positions: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Learn the `scores` (n,) that the samples at `positions` (n,) of the corpus had at `step`."""
        if np.isfinite(scores).all():
            self._leaves.add(step, positions, scores)
        else:
            self._spoiled = True

    def read(self) -> NDArray[np.float64]:
        """The scores, float64: of the domains (k,), 0 for empty ones; with a basis of its histograms (N,)."""
        values = self._of_domains()
        return values if self._basis is None else self._basis @ values

    def _of_domains(self) -> NDArray[np.float64]:
        if self._spoiled:
            self._spoiled = False
            return np.full(self._view.k, np.nan)
        if self._tree is None:
            values = self._leaves.means(self._view)
        else:
            believed, self._variances = shrink(self._tree, self._leaves.evidence, self._variances)
            sums = self._view.sum_leaves(believed.means[-1] * self._leaf_sizes)
            values = sums / np.maximum(self._view.sizes, 1)
        return np.where(self._view.sizes > 0, values, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        variances = self._variances and [self._variances.noise, *self._variances.spread]
        return {
            "leaves": self._leaves.state_dict(),
            "variances": variances,
            "spoiled": self._spoiled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._leaves.load_state_dict(state["leaves"])
        self._spoiled = bool(state["spoiled"])
        if state["variances"] is not None:
            noise, *spread = state["variances"]
            self._variances = Variances(noise=noise, spread=tuple(spread))


def nested_views(corpus: Corpus) -> list[View]:
    """Views from the whole corpus to its leaves, each about four times as fine as the one before.

    The merge order makes a tree of any views, so a corpus with one level of clusters has one too.
    """
    granularities = {1, *corpus.levels}
    k = _BRANCHING
    while k < corpus.num_leaves:
        granularities.add(k)
        k *= _BRANCHING
    return [corpus.domains(k=k) for k in sorted(granularities)]
