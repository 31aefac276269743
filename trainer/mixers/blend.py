"""What is sampled, given what a mixer wants: the same few additions for every mixer.

With the mixer's weights α, the target's importance-sampling histogram h, natural proportions n, u_i
samples drawn from domain i of n_i, E passes allowed, and t from 0 to 1 over the run:

    w = (1 - s_h) α + s_h h                          a share for the histogram (`importance_share`)
    w_i ← w_i · (1 - u_i / (E n_i))^γ, renormalised  repeats lose value (`repeat_decay` γ)
    w ← (1 - s(t)) w + s(t) n                        the reserve; s runs straight from `natural_share`
                                                     to `natural_share_end`
    w ← min(w, c), the rest by h under c             with surplus `importance`; c as in pipeline.stream.budget

The stream's own budget comes after all of them and bounds every batch. Nothing here has a state: the
outcome is a function of the step and of what was drawn, so a resumed run blends alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture, RepetitionBudget
from pipeline.stream.budget import paced_caps, water_fill


@dataclass(frozen=True, kw_only=True, slots=True)
class Blend:
    """A function of (weights, step, samples drawn); the mixer says nothing about any of it."""

    num_steps: int
    """Length of the run in batches."""
    batch_size: int
    """Samples of a global batch."""
    natural_share: float = 0.0
    """Share kept for natural proportions, at the start of the run."""
    natural_share_end: float | None = None
    """The same at the end; None keeps it as it is."""
    importance_share: float = 0.0
    """Share given to `histogram` instead of the mixer's weights."""
    histogram: Mixture | None = None
    """The target's importance-sampling mixture; needed by `importance_share` and the surplus to it."""
    repeat_decay: float = 0.0
    """The power: 0 is none; at 1 a domain half used counts half."""
    budget: RepetitionBudget | None = None
    """The stream's budget; needed by `repeat_decay` and the surplus to the histogram."""
    surplus_to_histogram: bool = False
    """Whether `histogram` takes what domains at their bound leave; natural proportions what it cannot."""

    def __post_init__(self) -> None:
        for name in ("natural_share", "natural_share_end", "importance_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name}={share!r} must lie between 0 and 1.")
        if not self.repeat_decay >= 0:
            raise ValueError(f"repeat_decay={self.repeat_decay!r} must be 0 or more.")
        if self.budget is None and self.repeat_decay:
            raise ValueError(
                f"repeat_decay={self.repeat_decay!r} measures what is used against what may be used; "
                "set a bound with max_passes."
            )
        assert self.histogram is not None or not (
            self.importance_share or self.surplus_to_histogram
        )
        assert self.budget is not None or not self.surplus_to_histogram

    @property
    def moves(self) -> bool:
        """Whether the outcome changes during a run although the mixer's weights stay."""
        end = self.natural_share_end
        reserve_moves = end is not None and end != self.natural_share
        return reserve_moves or self.repeat_decay > 0 or self.surplus_to_histogram

    def __call__(self, wanted: Mixture, step: int, drawn: NDArray[np.int64]) -> Mixture:
        """The mixture for batches from `step` on; `drawn` (k,) counts the samples of each domain so far."""
        mixture = wanted
        if self.importance_share and self.histogram is not None:
            mixture = mixture.blend(self.histogram, self.importance_share)
        if self.repeat_decay and self.budget is not None:
            mixture = _decayed(mixture, self.budget, drawn, self.repeat_decay)
        reserve = self.reserve_at(step)
        if reserve:
            mixture = mixture.blend(Mixture.natural(mixture.view), reserve)
        if self.surplus_to_histogram and step < self.num_steps:
            mixture = self._surplus_moved(mixture, step, drawn)
        return mixture

    def reserve_at(self, step: int) -> float:
        """Share of natural proportions in the batch at `step`."""
        if self.natural_share_end is None:
            return self.natural_share
        progress = min(1.0, step / max(1, self.num_steps - 1))
        return (1 - progress) * self.natural_share + progress * self.natural_share_end

    def _surplus_moved(self, mixture: Mixture, step: int, drawn: NDArray[np.int64]) -> Mixture:
        assert self.budget is not None
        assert self.histogram is not None
        caps = paced_caps(self.budget, mixture.view.sizes, drawn, step, self.batch_size)
        shares = np.minimum(mixture.probabilities, caps)
        for takers in (self.histogram, Mixture.natural(mixture.view)):
            missing = max(0.0, 1.0 - float(shares.sum()))
            shares = shares + water_fill(takers.probabilities, caps - shares, missing)
        return Mixture.from_weights(mixture.view, shares)


def _decayed(
    mixture: Mixture, budget: RepetitionBudget, drawn: NDArray[np.int64], decay: float
) -> Mixture:
    """Each domain by what is left of its budget, to the power `decay`; as it was if nothing is left."""
    allowance = np.maximum(budget.allowance(mixture.view.sizes), 1)
    left = np.maximum(1.0 - drawn / allowance, 0.0) ** decay
    weights = mixture.probabilities * left
    return Mixture.from_weights(mixture.view, weights) if weights.any() else mixture
