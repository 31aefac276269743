"""Dynamic Gradient Alignment: weights that follow the alignment scores while training runs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.dga import finite_scores, mirror_ascent, moving_average, standardized

ScoreScale = Literal["raw", "std"]


class DGAMixer:
    """Mirror ascent every `update_every` steps, from the mixture `start` on (see `trainer.dga`).

    With ema < 1 the moving average of the weights is what the mixer wants sampled; the weights
    themselves go on from where they are. With score_scale `std` the scores of an update are divided by
    their standard deviation over the domains. A domain that `start` gives nothing stays at 0. Scores
    that are not finite change nothing and are counted in `skipped_updates`.
    """

    def __init__(
        self,
        start: Mixture,
        *,
        step_size: float = 5.0,
        update_every: int = 25,
        ema: float = 1.0,
        score_scale: ScoreScale = "raw",
    ) -> None:
        if not step_size >= 0:
            raise ValueError(f"step_size={step_size!r} (η) must be 0 or more.")
        if update_every < 1:
            raise ValueError(f"update_every={update_every!r} (T_r) must be at least 1 step.")
        if not 0 < ema <= 1:
            raise ValueError(f"ema={ema!r} (β) must be above 0 and at most 1; 1 is no average.")
        if score_scale not in ("raw", "std"):
            raise ValueError(f"score_scale={score_scale!r} must be 'raw' or 'std'.")
        self.step_size = step_size
        self.update_every = update_every
        self.ema = ema
        self.score_scale = score_scale
        self.skipped_updates = 0
        self._alive = start.probabilities > 0
        with np.errstate(divide="ignore"):  # log 0 = -inf is the weight of an empty domain
            self._log_weights = np.log(start.probabilities)
        self._average = start.probabilities
        self._mixture = start

    @property
    def mixture(self) -> Mixture:
        """What the mixer wants sampled."""
        return self._mixture

    @property
    def weights(self) -> NDArray[np.float64]:
        """α itself, before averaging: (k,), sums to 1."""
        weights: NDArray[np.float64] = np.exp(self._log_weights)
        return weights

    def wants_scores(self, step: int) -> bool:
        """Every `update_every` steps; not at 0, where a model that knows nothing likes all alike."""
        return step > 0 and step % self.update_every == 0

    def update(self, scores: NDArray[np.float64]) -> Mixture:
        """One step of mirror ascent on scores (k,); returns what the mixer now wants sampled."""
        if not finite_scores(self._log_weights, scores):
            self.skipped_updates += 1
            return self._mixture
        if self.score_scale == "std":
            scores = standardized(self._log_weights, scores)
        self._log_weights = mirror_ascent(self._log_weights, scores, self.step_size)
        self._average = moving_average(self._average, self.weights, self.ema)
        self._mixture = Mixture.from_weights(self._mixture.view, self._average)
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
        self._mixture = Mixture.from_weights(self._mixture.view, self._average)
