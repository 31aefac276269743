"""DoGE, online: alignment like DGA's, with a step that follows the learning rate.

Fan, Pagliardini, Jaggi, *DoGE: Domain Reweighting with Generalization Estimation*, arXiv 2310.15393. With
the learning rate η_t and the strength μ of the Bregman term, every step:

    W_i = <∇L_i(θ), ∇L_target(θ)>          towards one target (the paper's out-of-domain case), or
    W_i = <∇L_i(θ), Σ_j ∇L_j(θ)>           towards all domains alike (its universal case)
    α̂_i = α_i · exp(η_t W_i / μ),  α = α̂ / Σ_j α̂_j,  from uniform weights

Where we deviate: the paper trains a small proxy model this way and the large one with the average of α;
here α steers the model that is trained (hence online). One update stands for the `update_every` steps
since the last one, so its exponent is that many times larger. Towards all, the sum over domains is their
mean: it only rescales μ by k. Gradients are normalised as the run's `gradients` says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.mixers.mirror import MirrorMixer


class DoGEMixer(MirrorMixer):
    """Mirror ascent whose step is `update_every` · learning rate / `bregman` (μ), from `start` on."""

    def __init__(
        self,
        start: Mixture,
        *,
        learning_rate: Callable[[int], float],
        bregman: float = 0.05,
        update_every: int = 25,
    ) -> None:
        super().__init__(start.probabilities, start, update_every=update_every)
        if not bregman > 0:
            raise ValueError(f"bregman={bregman!r} (μ) must be positive.")
        self.bregman = bregman
        self._learning_rate = learning_rate

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """One update on W (k,) for the steps up to `step`."""
        self._climb(scores, self.update_every * self._learning_rate(step - 1) / self.bregman)
