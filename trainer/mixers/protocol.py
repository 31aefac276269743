"""What a mixer is."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture


class Mixer(Protocol):
    """Decides what the next batches are drawn from."""

    @property
    def mixture(self) -> Mixture:
        """What the mixer wants sampled; `trainer.mixers.blend` and the budget come after it."""
        ...

    def wants_scores(self, step: int) -> bool:
        """Whether alignment is to be measured, and `update` called, before the batch at `step`."""
        ...

    def update(self, scores: NDArray[np.float64]) -> Mixture:
        """Learn from alignment scores (k,), positive where a domain helps; what it now wants."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What changes over a run, as plain JSON types."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        ...
