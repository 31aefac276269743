"""Repetition budgets, paced: how much of a batch each domain may take, and who takes the rest.

Small good domains ruin a run when they are repeated until the model knows them by heart. A budget
bounds how often a domain repeats; pacing spreads it over the steps that remain, so that it is not burnt
at the start. With E passes allowed, n_i samples in domain i, u_i of them used and R samples left to
draw in the run, the cap of domain i is

    c_i = (E · n_i - u_i) / R .

What a domain may not take goes to the others: q = min(c, λ·m) with λ such that q sums to 1, which is
water-filling on the capped simplex. Σ c_i >= 1 holds at the start (checked) and then always, because a
batch takes the same from the numerators' sum as from R.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BudgetError
from pipeline.stream.mixture import Mixture

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RepetitionBudget:
    """At most `max_passes` passes over any domain within `num_steps` batches."""

    max_passes: float
    """Upper bound on samples drawn from a domain, in multiples of its size; need not be whole."""
    num_steps: int
    """Length of the run in global batches; the budget is spread over the ones that remain."""
    surplus: Literal["mixture", "natural"] = "mixture"
    """Who takes what capped domains leave: the others by the mixture's own weights (and by natural
    proportions where those run out), or all by natural proportions."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.max_passes) and self.max_passes > 0):
            raise BudgetError(f"max_passes={self.max_passes!r} must be a positive number.")
        if self.num_steps < 1 or self.num_steps % 1:
            raise BudgetError(f"num_steps={self.num_steps!r} must be a whole number of at least 1.")
        object.__setattr__(self, "num_steps", int(self.num_steps))  # numpy's numbers are no JSON
        if self.surplus not in ("mixture", "natural"):
            raise BudgetError(f"surplus={self.surplus!r} must be 'mixture' or 'natural'.")

    def allowance(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Samples that each domain of `sizes` (k,) may give in the whole run: int64 (k,).

        Bounded so that their sum is a number, too, far beyond what a run can draw.
        """
        allowed: Floats = np.floor(np.minimum(self.max_passes * sizes, 2**62 // len(sizes)))
        return allowed.astype(np.int64)

    def check(self, sizes: NDArray[np.int64], batch_size: int) -> None:
        """Raise `BudgetError` when all domains together cannot supply the run."""
        available, needed = int(self.allowance(sizes).sum()), self.num_steps * batch_size
        if available < needed:
            least, steps = _least_passes(needed, sizes), available // batch_size
            shorter = f", or train for at most {steps:,} steps" if steps else ""
            raise BudgetError(
                f"max_passes={self.max_passes} allows {available:,} samples in all"
                f"{'' if steps else ', less than a batch'}, but the run draws {self.num_steps:,} batches of "
                f"{batch_size:,} = {needed:,}. Allow at least {least:.2f} passes{shorter}."
            )


def check_budget(value: object) -> None:
    """Raise `TypeError` for what is no budget, such as a bare number of passes."""
    if not isinstance(value, RepetitionBudget):
        raise TypeError(
            f"budget={value!r} is no RepetitionBudget. Write RepetitionBudget(max_passes=8, num_steps=…): a "
            "bound is spread over the steps of a run."
        )


def _least_passes(needed: int, sizes: NDArray[np.int64]) -> float:
    """The fewest passes, in hundredths, with which domains of `sizes` (k,) give `needed` whole samples."""
    hundredths = math.ceil(100 * needed / max(int(sizes.sum()), 1))
    while sizes.any() and np.floor(hundredths / 100 * sizes).sum() < needed:
        hundredths += 1
    return hundredths / 100


def paced_probabilities(
    mixture: Mixture, budget: RepetitionBudget, used: NDArray[np.int64], step: int, batch_size: int
) -> Floats:
    """Probabilities of the batch at `step` under the budget: float64 (k,), sums to 1.

    `used` (k,) counts the samples drawn from each domain before `step`. Raises `BudgetError` past the
    end of the planned run.
    """
    if step >= budget.num_steps:
        raise BudgetError(
            f"step {step} lies beyond the {budget.num_steps} steps that the repetition budget was planned "
            "for: the run has ended. A longer one begins anew, with a budget that is planned for it "
            "(num_steps) or with none."
        )
    sizes = mixture.view.sizes
    caps = paced_caps(budget, sizes, used, step, batch_size)
    natural = sizes / sizes.sum()
    if budget.surplus == "mixture":
        shares = water_fill(mixture.probabilities, caps, 1.0)
    else:
        shares = np.minimum(mixture.probabilities, caps)
    missing = 1.0 - float(shares.sum())
    if missing > 1e-12:
        shares = shares + water_fill(natural, caps - shares, missing)
    return shares


def paced_caps(
    budget: RepetitionBudget,
    sizes: NDArray[np.int64],
    used: NDArray[np.int64],
    step: int,
    batch_size: int,
) -> Floats:
    """The most that each domain of `sizes` (k,) may have of the batch at `step` < num_steps: float64 (k,).

    (max_passes · n_i - used_i) / samples that remain in the run, and not below 0.
    """
    left = (budget.num_steps - step) * batch_size
    caps: Floats = np.maximum(budget.allowance(sizes) - used, 0) / left
    return caps


def water_fill(weights: Floats, caps: Floats, mass: float) -> Floats:
    """Shares min(caps, λ·weights) that sum to `mass`, or caps wherever weights > 0 if those sum to less.

    weights, caps and the result have shape (k,) and are non-negative. The order of domains does not
    matter. Exact: each round fixes the domains that reach their cap, and λ only rises.
    """
    shares = np.zeros_like(weights)
    free = weights > 0
    capped_mass = 0.0
    while (free_weight := float(weights[free].sum())) > 0.0:
        level = (mass - capped_mass) / free_weight
        if level <= 0.0:
            break
        with np.errstate(over="ignore"):  # a cap that overflows here is out of reach anyway
            over = free & (weights >= caps / level)
        if not over.any():
            shares[free] = level * weights[free]
            break
        shares[over] = caps[over]
        free &= ~over
        capped_mass = float(shares.sum())
    return shares
