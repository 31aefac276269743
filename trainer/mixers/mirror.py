"""Weights that climb by mirror ascent: what DGA, DoGE and DGA over distributions have in common."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.dga import finite_scores, mirror_ascent, moving_average, standardized
from trainer.mixers.protocol import Signal

ScoreScale = Literal["raw", "std"]
ContinueFrom = Literal["weights", "average"]


class MirrorWeights:
    """Weights (m,) on the simplex, their moving average, and the count of scores that were no numbers.

    Weights that `start` has at 0 stay there. See `trainer.dga` for the arithmetic.
    """

    def __init__(self, start: NDArray[np.float64]) -> None:
        self.average = start
        """(1 - β) average + β weights after each step; float64 (m,), sums to 1."""
        self.skipped = 0
        self._alive = start > 0
        with np.errstate(divide="ignore"):  # log 0 = -inf is the weight of an empty domain
            self._log_weights = np.log(start)

    @property
    def weights(self) -> NDArray[np.float64]:
        """α itself: float64 (m,), sums to 1."""
        weights: NDArray[np.float64] = np.exp(self._log_weights)
        return weights

    def ascend(
        self,
        scores: NDArray[np.float64],
        step_size: float,
        *,
        ema: float = 1.0,
        score_scale: ScoreScale = "raw",
        continue_from: ContinueFrom = "weights",
    ) -> bool:
        """One step on scores (m,); False when they are not finite, which changes and counts that.

        With continue_from `average` the next step starts at the average, as if it had been the weights.
        """
        if not finite_scores(self._log_weights, scores):
            self.skipped += 1
            return False
        if score_scale == "std":
            scores = standardized(self._log_weights, scores)
        self._log_weights = mirror_ascent(self._log_weights, scores, step_size)
        self.average = moving_average(self.average, self.weights, ema)
        if continue_from == "average":
            alive = np.maximum(self.average[self._alive], np.finfo(np.float64).tiny)
            self._log_weights[self._alive] = np.log(alive)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Logarithms of the weights that are not 0, average and count, as plain JSON types."""
        return {
            "log_weights": self._log_weights[self._alive].tolist(),
            "average": self.average.tolist(),
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._log_weights[self._alive] = state["log_weights"]
        self.average = np.array(state["average"], dtype=np.float64)
        self.skipped = int(state["skipped"])


class MirrorMixer:
    """A mixer whose weights climb every `update_every` steps; what it is told is a subclass's `update`."""

    def __init__(self, start: NDArray[np.float64], mixture: Mixture, *, update_every: int) -> None:
        check_update_every(update_every)
        self.signal: Signal = "alignment"
        self.update_every = update_every
        self._alpha = MirrorWeights(start)
        self._mixture = mixture

    @property
    def skipped_updates(self) -> int:
        """How often scores were not finite."""
        return self._alpha.skipped

    def mixture_at(self, step: int) -> Mixture:
        """What the mixer wants sampled since its last update."""
        return self._mixture

    def wants_scores(self, step: int) -> bool:
        """Every `update_every` steps; not at 0, where a model that knows nothing likes all alike."""
        return step > 0 and step % self.update_every == 0

    def details(self) -> dict[str, Any]:
        """The mixture says it all."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Weights, average and count as plain JSON types."""
        return self._alpha.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._alpha.load_state_dict(state)
        self._mixture = self._mixed()

    def _climb(self, scores: NDArray[np.float64], step_size: float, **how: Any) -> None:
        if self._alpha.ascend(scores, step_size, **how):
            self._mixture = self._mixed()

    def _mixed(self) -> Mixture:
        """The mixture that the averaged weights mean: here they are its own."""
        return Mixture.from_weights(self._mixture.view, self._alpha.average)


def check_update_every(update_every: int) -> None:
    """Raise ValueError unless there is at least one step from update to update."""
    if update_every < 1:
        raise ValueError(f"update_every={update_every!r} (T_r) must be at least 1 step.")


def check_mirror_settings(
    step_size: float, ema: float, score_scale: str, continue_from: str
) -> None:
    """Raise ValueError for settings of `MirrorWeights.ascend` that are out of range."""
    if not step_size >= 0:
        raise ValueError(f"step_size={step_size!r} (η) must be 0 or more.")
    if not 0 < ema <= 1:
        raise ValueError(f"ema={ema!r} (β) must be above 0 and at most 1; 1 is no average.")
    if score_scale not in ("raw", "std"):
        raise ValueError(f"score_scale={score_scale!r} must be 'raw' or 'std'.")
    if continue_from not in ("weights", "average"):
        raise ValueError(f"continue_from={continue_from!r} must be 'weights' or 'average'.")
