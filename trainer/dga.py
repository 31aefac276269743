"""The mathematics of Dynamic Gradient Alignment, on plain arrays.

Fan, Grangier, Ablin, *Dynamic Gradient Alignment for Online Data Mixing*, arXiv 2410.02498. With the
specialised loss L_spe and the loss L_i of domain i, every T_r steps:

    a_i      = <∇L_i(θ), ∇L_spe(θ)>                 the score: what a step on domain i does for the task
    α̂_i      = α_i · exp(η a_i)
    α        = α̂ / Σ_j α̂_j                          mirror ascent on the simplex with the entropy as mirror
    α_EMA    = (1 − β) α_EMA + β α                   only when asked; α continues from α, from α_EMA
                                                    only when that is asked, too

α (or α_EMA) is what the next batches are drawn from.

Where we deviate, and why:
- α is kept as logarithms. A domain that has lost for a while can come back: as a probability it would
  have become exactly 0, from where no factor leads away.
- The target's gradient may be clipped to norm 1 or both gradients normalised (`alignment.py`): the
  raw product scales with the gradient norms, so that one η does not serve a whole run.
- Scores can be measured in their own standard deviation over domains (`standardized`), so that one η
  serves all targets, model sizes and stages of a run.
- What is sampled can hold back a share for a prior, and more (`mixers/blend.py`).
- Scores that are not finite change nothing. One NaN would otherwise end in all weights.
- A domain without samples has weight 0 and keeps it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mirror_ascent(
    log_weights: NDArray[np.float64], scores: NDArray[np.float64], step_size: float
) -> NDArray[np.float64]:
    """log α ← log α + η a, renormalised.

    Both arrays are float64 (k,); a weight of 0 is the logarithm -inf and stays so, whatever its
    score. Scores of positive weights must be finite: see `finite_scores`.
    """
    alive = np.isfinite(log_weights)
    moved = log_weights[alive] + step_size * scores[alive]
    moved -= moved.max()  # the exponentials of large scores would overflow
    result = np.full_like(log_weights, -np.inf)
    result[alive] = moved - np.log(np.exp(moved).sum())
    return result


def moving_average(
    average: NDArray[np.float64], weights: NDArray[np.float64], beta: float
) -> NDArray[np.float64]:
    """α_EMA ← (1 − β) α_EMA + β α; β = 1 follows α at once, β = 0 never moves. All float64 (k,)."""
    return (1.0 - beta) * average + beta * weights


def standardized(
    log_weights: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores in units of their standard deviation over the domains that can have weight: (k,).

    Scores that are all the same favor no domain, and stay as they are.
    """
    deviation = float(scores[np.isfinite(log_weights)].std())
    return scores / deviation if deviation > 0 else scores


def finite_scores(log_weights: NDArray[np.float64], scores: NDArray[np.float64]) -> bool:
    """Whether every domain that can have weight has a finite score."""
    return bool(np.isfinite(scores[np.isfinite(log_weights)]).all())
