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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.mixers.mirror import MirrorWeights, check_update_every
from trainer.mixers.protocol import Signal


class DoGEMixer:
    """Mirror ascent whose step is `update_every` · learning rate / `bregman` (μ), from `start` on."""

    def __init__(
        self,
        start: Mixture,
        *,
        learning_rate: Callable[[int], float],
        bregman: float = 0.05,
        update_every: int = 25,
    ) -> None:
        check_update_every(update_every)
        if not bregman > 0:
            raise ValueError(f"bregman={bregman!r} (μ) must be positive.")
        self.signal: Signal = "alignment"
        self.bregman = bregman
        self.update_every = update_every
        self._learning_rate = learning_rate
        self._alpha = MirrorWeights(start.probabilities)
        self._mixture = start

    @property
    def skipped_updates(self) -> int:
        """How often scores were not finite."""
        return self._alpha.skipped

    def mixture_at(self, step: int) -> Mixture:
        """α since its last update."""
        return self._mixture

    def wants_scores(self, step: int) -> bool:
        """Every `update_every` steps, but not at 0."""
        return step > 0 and step % self.update_every == 0

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """One update on W (k,) for the steps up to `step`."""
        step_size = self.update_every * self._learning_rate(step - 1) / self.bregman
        if self._alpha.ascend(scores, step_size):
            self._mixture = Mixture.from_weights(self._mixture.view, self._alpha.weights)

    def details(self) -> dict[str, Any]:
        """The mixture says it all."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Weights and count as plain JSON types."""
        return self._alpha.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._alpha.load_state_dict(state)
        self._mixture = Mixture.from_weights(self._mixture.view, self._alpha.weights)
