"""A mixture that stays as it is: the base of every mixer that looks at no scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture


class FixedMixer:
    """Always the same mixture."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    @property
    def mixture(self) -> Mixture:
        """The mixture in force."""
        return self._mixture

    def wants_scores(self, step: int) -> bool:
        """Never."""
        return False

    def update(self, scores: NDArray[np.float64]) -> Mixture:
        """Scores change nothing."""
        return self._mixture

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes, so there is nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was saved."""
