"""A mixture that stays as it is: the base of every mixer that learns nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.mixers.protocol import Signal


class FixedMixer:
    """Always the same mixture."""

    def __init__(self, mixture: Mixture) -> None:
        self.signal: Signal = "nothing"
        self.skipped_updates = 0
        self._mixture = mixture

    def mixture_at(self, step: int) -> Mixture:
        """The same at every step."""
        return self._mixture

    def wants_scores(self, step: int) -> bool:
        """Never."""
        return False

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """Scores change nothing."""

    def details(self) -> dict[str, Any]:
        """The mixture says it all."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes, so there is nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was saved."""
