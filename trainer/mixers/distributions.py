"""DGA over distributions: few weights for any number of domains.

Section 3 of arXiv 2410.02498: with N histograms p_1 … p_N over the k domains (importance sampling for the
target sets and for auxiliary sets), the mixture is Σ_j α_j p_j, and only α is learned:

    a_j = <∇L_{p_j}(θ), ∇L_spe(θ)>,   L_p = Σ_i p_i L_i
    α̂_j = α_j · exp(η a_j),  α = α̂ / Σ_l α̂_l

So an update takes N + 1 gradients whether there are 64 domains or 262,144, and no domain's score rests on
a handful of its own samples. What no histogram contains cannot be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture, MixtureError, StateError
from trainer.mixers.mirror import (
    ContinueFrom,
    MirrorMixer,
    ScoreScale,
    check_mirror_settings,
)


class DistributionMixer(MirrorMixer):
    """Mirror ascent on the weights of `basis`, by name; `start` (N,) are the first weights.

    Scores are those of the basis histograms, in the order of `basis`.
    """

    def __init__(
        self,
        basis: Mapping[str, Mixture],
        start: NDArray[np.float64],
        *,
        step_size: float = 5.0,
        update_every: int = 25,
        ema: float = 1.0,
        score_scale: ScoreScale = "raw",
        continue_from: ContinueFrom = "weights",
    ) -> None:
        if len(basis) < 2:
            raise MixtureError(
                f"the basis holds {', '.join(basis) or 'nothing'}; weights can only move between two or "
                "more histograms. Name more target sets, or `natural`."
            )
        check_mirror_settings(step_size, ema, score_scale, continue_from)
        self.step_size = step_size
        self.ema = ema
        self.score_scale: ScoreScale = score_scale
        self.continue_from: ContinueFrom = continue_from
        self.names = tuple(basis)
        self.basis = np.stack([mixture.probabilities for mixture in basis.values()])
        """Shape (N, k): the histograms p_j."""
        view = next(iter(basis.values())).view
        first = Mixture.from_weights(view, start @ self.basis)
        super().__init__(start, first, update_every=update_every)

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """One step of mirror ascent on the scores (N,) of the basis."""
        self._climb(
            scores,
            self.step_size,
            ema=self.ema,
            score_scale=self.score_scale,
            continue_from=self.continue_from,
        )

    def details(self) -> dict[str, Any]:
        """The weight of each histogram, by name."""
        weights = self._alpha.average.tolist()
        return {"basis_weights": dict(zip(self.names, weights, strict=True))}

    def state_dict(self) -> dict[str, Any]:
        """Weights, average and count, and whose weights they are."""
        return {**super().state_dict(), "basis": list(self.names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; `StateError` for one over another basis."""
        saved = tuple(state.get("basis", self.names))  # earlier versions did not say
        if saved != self.names:
            raise StateError(
                f"the saved weights are those of {', '.join(saved)}, and the basis here is "
                f"{', '.join(self.names)}. Give target and basis as they were saved with, in that order."
            )
        super().load_state_dict(state)

    def _mixed(self) -> Mixture:
        """Σ_j α_j p_j."""
        return Mixture.from_weights(self._mixture.view, self._alpha.average @ self.basis)
