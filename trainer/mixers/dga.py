"""Dynamic Gradient Alignment: weights that follow the alignment scores while training runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture, View
from trainer.dga import finite_scores, mirror_ascent, moving_average, reserve


class DGAMixer:
    """Mirror ascent every `update_every` steps, from natural proportions on (see `trainer.dga`).

    With ema < 1 the moving average of the weights is sampled; the weights themselves go on from where
    they are. With `natural_share` a part of what is sampled is kept for natural proportions. Scores
    that are not finite change nothing and are counted in `skipped_updates`.
    """

    def __init__(
        self,
        view: View,
        *,
        step_size: float = 5.0,
        update_every: int = 25,
        ema: float = 1.0,
        natural_share: float = 0.0,
    ) -> None:
        if not step_size >= 0:
            raise ValueError(f"step_size={step_size!r} (η) must be 0 or more.")
        if update_every < 1:
            raise ValueError(f"update_every={update_every!r} (T_r) must be at least 1 step.")
        if not 0 < ema <= 1:
            raise ValueError(f"ema={ema!r} (β) must be above 0 and at most 1; 1 is no average.")
        if not 0 <= natural_share <= 1:
            raise ValueError(f"natural_share={natural_share!r} must lie between 0 and 1.")
        self.step_size = step_size
        self.update_every = update_every
        self.ema = ema
        self.natural_share = natural_share
        self.skipped_updates = 0
        self._natural = Mixture.natural(view)
        with np.errstate(divide="ignore"):  # log 0 = -inf is the weight of an empty domain
            self._log_weights = np.log(self._natural.probabilities)
        self._average = self._natural.probabilities
        self._mixture = self._natural

    @property
    def mixture(self) -> Mixture:
        """The mixture in force."""
        return self._mixture

    @property
    def weights(self) -> NDArray[np.float64]:
        """α itself, before averaging and reserve: (k,), sums to 1."""
        weights: NDArray[np.float64] = np.exp(self._log_weights)
        return weights

    def wants_scores(self, step: int) -> bool:
        """Every `update_every` steps; not at 0, where a model that knows nothing likes all alike."""
        return step > 0 and step % self.update_every == 0

    def update(self, scores: NDArray[np.float64]) -> Mixture:
        """One step of mirror ascent on scores (k,); returns the mixture now in force."""
        if not finite_scores(self._log_weights, scores):
            self.skipped_updates += 1
            return self._mixture
        self._log_weights = mirror_ascent(self._log_weights, scores, self.step_size)
        self._average = moving_average(self._average, self.weights, self.ema)
        self._mixture = self._sampled()
        return self._mixture

    def state_dict(self) -> dict[str, Any]:
        """Weights, average and count as plain JSON types; logarithms of non-empty domains only."""
        return {
            "log_weights": self._log_weights[self._alive].tolist(),
            "average": self._average.tolist(),
            "skipped_updates": self.skipped_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._log_weights[self._alive] = state["log_weights"]
        self._average = np.array(state["average"], dtype=np.float64)
        self.skipped_updates = int(state["skipped_updates"])
        self._mixture = self._sampled()

    @property
    def _alive(self) -> NDArray[np.bool_]:
        return self._natural.probabilities > 0

    def _sampled(self) -> Mixture:
        shares = reserve(self._average, self._natural.probabilities, self.natural_share)
        return Mixture.from_weights(self._natural.view, shares)
