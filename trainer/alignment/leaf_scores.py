"""Scores of single samples, kept per leaf with counts and recency: read at any granularity.

An observation of age t steps counts 2^(-t / half_life), and nothing after 332 half-lives. Three numbers per
leaf, one array each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import View
from pipeline.samples.packing import packed, unpacked
from trainer.alignment.shrinkage import Evidence

_KEPT = ("counts", "sums", "squares")
_FORGOTTEN = 1e-100
"""What counts less is dropped: among the smallest floats fading ends, and sums lose their ratio to counts."""


class LeafScores:
    """What has been observed of each leaf; `leaves` is the view of the finest granularity."""

    def __init__(self, leaves: View, *, half_life: float) -> None:
        if not half_life > 0:
            raise ValueError(
                f"half_life={half_life!r} counts the steps after which an observation counts half; it "
                "must be positive."
            )
        self._leaves = leaves
        self._half_life = half_life
        self.step = 0
        """When the newest observations were made."""
        self.counts = np.zeros(leaves.k)
        """Effective number of observations, float64 (leaves,): each counts 1 when it is made."""
        self.sums = np.zeros(leaves.k)
        self.squares = np.zeros(leaves.k)

    def add(self, step: int, positions: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Keep the finite `scores` (n,) that samples at `positions` (n,) of the corpus had at `step`."""
        fading = 2.0 ** ((self.step - step) / self._half_life)
        kept = np.where(self.counts * fading < _FORGOTTEN, 0.0, fading)
        self.step = step
        leaf = self._leaves.domains_at(positions)
        for array, values in (
            (self.counts, np.ones(len(scores))),
            (self.sums, scores),
            (self.squares, scores**2),
        ):
            array *= kept
            np.add.at(array, leaf, values)

    @property
    def evidence(self) -> Evidence:
        """The same as counts, means and scatter."""
        seen = self.counts > 0
        means = np.divide(self.sums, self.counts, out=np.zeros_like(self.sums), where=seen)
        scatter = np.maximum(self.squares - self.sums * means, 0)
        return Evidence(counts=self.counts, means=means, scatter=scatter)

    def means(self, view: View) -> NDArray[np.float64]:
        """Mean score of each domain, float64 (k,); of all samples for a domain without observations."""
        counts, sums = view.sum_leaves(self.counts), view.sum_leaves(self.sums)
        overall = sums.sum() / counts.sum() if counts.any() else 0.0
        return np.divide(sums, counts, out=np.full(view.k, overall), where=counts > 0)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        arrays = {name: packed(getattr(self, name)) for name in _KEPT}
        return {**arrays, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        for name in _KEPT:
            getattr(self, name)[:] = unpacked(state[name], np.float64)
        self.step = int(state["step"])
