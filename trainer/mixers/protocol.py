"""What a mixer is."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture

Signal = Literal["nothing", "alignment", "losses"]


class Mixer(Protocol):
    """Decides what the next batches are drawn from."""

    @property
    def signal(self) -> Signal:
        """What `update` learns from: alignment scores (`trainer.alignment`), importance-weighted training
        losses (`trainer.run.domain_losses`), or nothing."""
        ...

    @property
    def skipped_updates(self) -> int:
        """How often scores were not finite and changed nothing."""
        ...

    def mixture_at(self, step: int) -> Mixture:
        """What the mixer wants batches from `step` on drawn from; blend and budget come after it."""
        ...

    def wants_scores(self, step: int) -> bool:
        """Whether `update` is to be called before the batch at `step`."""
        ...

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """Learn from scores (m,), one per domain or per basis histogram."""
        ...

    def details(self) -> dict[str, Any]:
        """What a record says of the mixer beside its mixture; plain JSON types."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What changes over a run, as plain JSON types."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
