"""Dynamic Gradient Alignment: weights that follow the alignment scores while training runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.mixers.mirror import (
    MirrorWeights,
    ScoreScale,
    check_mirror_settings,
    check_update_every,
)
from trainer.mixers.protocol import Signal


class DGAMixer:
    """Mirror ascent every `update_every` steps, from the mixture `start` on (see `trainer.dga`).

    With ema < 1 the moving average of the weights is what the mixer wants sampled; the weights
    themselves go on from where they are. With score_scale `std` the scores of an update are divided by
    their standard deviation over the domains. A domain that `start` gives nothing stays at 0. Scores
    that are not finite change nothing and are counted.
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
        check_update_every(update_every)
        check_mirror_settings(step_size, ema, score_scale)
        self.signal: Signal = "alignment"
        self.step_size = step_size
        self.update_every = update_every
        self.ema = ema
        self.score_scale: ScoreScale = score_scale
        self._alpha = MirrorWeights(start.probabilities)
        self._mixture = start

    @property
    def weights(self) -> NDArray[np.float64]:
        """α itself, before averaging: (k,), sums to 1."""
        return self._alpha.weights

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

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """One step of mirror ascent on alignment scores (k,)."""
        moved = self._alpha.ascend(
            scores, self.step_size, ema=self.ema, score_scale=self.score_scale
        )
        if moved:
            self._mixture = Mixture.from_weights(self._mixture.view, self._alpha.average)

    def details(self) -> dict[str, Any]:
        """The mixture says it all."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Weights, average and count as plain JSON types."""
        return self._alpha.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._alpha.load_state_dict(state)
        self._mixture = Mixture.from_weights(self._mixture.view, self._alpha.average)
