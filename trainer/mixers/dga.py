"""Dynamic Gradient Alignment: weights that follow the alignment scores while training runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.mixers.mirror import (
    ContinueFrom,
    MirrorMixer,
    ScoreScale,
    check_mirror_settings,
)


class DGAMixer(MirrorMixer):
    """Mirror ascent every `update_every` steps, from the mixture `start` on (see `trainer.dga`).

    With ema < 1 the moving average of the weights is what the mixer wants sampled; the weights
    themselves go on from where they are, or from the average (continue_from). With score_scale `std` the
    scores of an update are divided by their standard deviation over the domains. A domain that `start`
    gives nothing stays at 0. Scores that are not finite change nothing and are counted.
    """

    def __init__(
        self,
        start: Mixture,
        *,
        step_size: float = 5.0,
        update_every: int = 25,
        ema: float = 1.0,
        score_scale: ScoreScale = "raw",
        continue_from: ContinueFrom = "weights",
    ) -> None:
        super().__init__(start.probabilities, start, update_every=update_every)
        check_mirror_settings(step_size, ema, score_scale, continue_from)
        self.step_size = step_size
        self.ema = ema
        self.score_scale: ScoreScale = score_scale
        self.continue_from: ContinueFrom = continue_from

    @property
    def weights(self) -> NDArray[np.float64]:
        """α itself, before averaging: (k,), sums to 1."""
        return self._alpha.weights

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """One step of mirror ascent on alignment scores (k,)."""
        self._climb(
            scores,
            self.step_size,
            ema=self.ema,
            score_scale=self.score_scale,
            continue_from=self.continue_from,
        )
