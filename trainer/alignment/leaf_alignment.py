"""Alignment scores of domains out of what is known of their leaves, as it is or shrunk over the tree."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import Corpus, View
from trainer.alignment.leaf_scores import LeafScores
from trainer.alignment.shrinkage import Posterior, Tree, Variances, posterior, shrink

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
        self._leaves, *self._halves = (LeafScores(views[-1], half_life=half_life) for _ in range(3))
        self._spoiled = False
        self._view = view
        self._leaf_sizes = views[-1].sizes.astype(np.float64)
        self._tree = Tree.of_views(views) if shrinkage == "tree" else None
        self._variances: Variances | None = None

    def observe(self, step: int, positions: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Learn the `scores` (n,) that the samples at `positions` (n,) of the corpus had at `step`."""
        if not np.isfinite(scores).all():
            self._spoiled = True
            return
        self._leaves.add(step, positions, scores)
        older, newer = sorted(self._halves, key=lambda half: half.step)
        # The samples of a step share the target's draw, and its noise: they stay together.
        (newer if newer.step == step else older).add(step, positions, scores)

    def read(self) -> NDArray[np.float64]:
        """The scores, float64: of the domains (k,), 0 for empty ones; with a basis of its histograms (N,)."""
        values = self._of_domains()
        return values if self._basis is None else self._basis @ values

    def read_halves(self) -> NDArray[np.float64]:
        """The same of two halves of the evidence, which steps fill in turn: float64 (2, k) or (2, N).

        NaN for a domain of which the half has seen nothing. Variances are those of the last `read`.
        """
        halves = []
        for half in self._halves:
            values = np.full(self._view.k, np.nan)
            if self._tree is None:
                values = half.means(self._view)
            elif self._variances is not None:
                values = self._shrunk(posterior(self._tree, half.evidence, self._variances))
            if self._basis is None:
                halves.append(np.where(self._view.sum_leaves(half.counts) > 0, values, np.nan))
            else:
                halves.append(self._basis @ np.where(self._view.sizes > 0, values, 0.0))
        return np.stack(halves)

    def _of_domains(self) -> NDArray[np.float64]:
        if self._spoiled:
            self._spoiled = False
            return np.full(self._view.k, np.nan)
        if self._tree is None:
            values = self._leaves.means(self._view)
        else:
            believed, self._variances = shrink(self._tree, self._leaves.evidence, self._variances)
            values = self._shrunk(believed)
        return np.where(self._view.sizes > 0, values, 0.0)

    def _shrunk(self, believed: Posterior) -> NDArray[np.float64]:
        """What is believed of the domains' samples in the mean: float64 (k,)."""
        sums = self._view.sum_leaves(believed.means[-1] * self._leaf_sizes)
        means: NDArray[np.float64] = sums / np.maximum(self._view.sizes, 1)
        return means

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        variances = self._variances and [self._variances.noise, *self._variances.spread]
        return {
            "leaves": self._leaves.state_dict(),
            "halves": [half.state_dict() for half in self._halves],
            "variances": variances,
            "spoiled": self._spoiled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._leaves.load_state_dict(state["leaves"])
        of_halves = state.get("halves", ())  # earlier versions kept none
        for half, saved in zip(self._halves, of_halves, strict=False):
            half.load_state_dict(saved)
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
