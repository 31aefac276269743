"""Online Data Mixing: a bandit that draws more of the domains on which the training loss is high.

Albalak, Pan, Raffel, Wang, *Efficient Online Data Mixing For Language Model Pre-Training*, arXiv
2312.02406: Exp3 (Auer et al. 2002) with the K domains as arms and the training loss as reward. In the form
of the authors' released code, at turn t = 1, 2, …:

    R_i ← R_i + L_i / (10 π_i)                     for the domain that was drawn
    ε_t = min(1/K, sqrt(ln K / (K t)))
    π_i = (1 - K ε_t) exp(ε_{t-1} R_i) / Σ_j exp(ε_{t-1} R_j) + ε_t

It knows no target: it is the outside reference, not a way to specialise. Where we deviate: a turn is a
batch of many draws, so R_i takes the unbiased mean of its samples' L / (10 π_i) (trainer.run.domain_losses);
π_i is what was really sampled, after blend and budget; domains without samples are no arms. Until about
K ln K turns have passed, ε_t is 1/K and the mixture is uniform.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture, View
from trainer.mixers.mirror import check_update_every
from trainer.mixers.protocol import Signal

_REWARD_SCALE = 10.0


class ODMMixer:
    """Exp3 on training losses; a turn every `update_every` steps."""

    def __init__(self, view: View, *, update_every: int = 1) -> None:
        check_update_every(update_every)
        self.signal: Signal = "losses"
        self.update_every = update_every
        self.skipped_updates = 0
        self._alive = view.sizes > 0
        self._rewards = np.zeros(view.k)
        self._turn = 0
        self._exploration = 1.0 / int(self._alive.sum())
        self._mixture = Mixture.uniform(view)

    def mixture_at(self, step: int) -> Mixture:
        """π since the last turn."""
        return self._mixture

    def wants_scores(self, step: int) -> bool:
        """Every `update_every` steps, but not at 0."""
        return step > 0 and step % self.update_every == 0

    def update(self, step: int, scores: NDArray[np.float64]) -> None:
        """One turn on importance-weighted losses (k,): the mean of L/π over samples, 0 where none was."""
        if not np.isfinite(scores).all():
            self.skipped_updates += 1
            return
        self._turn += 1
        self._rewards = self._rewards + scores / _REWARD_SCALE
        before, self._exploration = (
            self._exploration,
            exploration(int(self._alive.sum()), self._turn),
        )
        weights = exp3_policy(self._rewards[self._alive], before, self._exploration)
        policy = np.zeros(len(self._rewards))
        policy[self._alive] = weights
        self._mixture = Mixture.from_weights(self._mixture.view, policy)

    def details(self) -> dict[str, Any]:
        """The share that every domain is sure of."""
        return {"exploration": self._exploration}

    def state_dict(self) -> dict[str, Any]:
        """Rewards, turn and mixture as plain JSON types."""
        return {
            "rewards": self._rewards.tolist(),
            "turn": self._turn,
            "exploration": self._exploration,
            "mixture": self._mixture.probabilities.tolist(),
            "skipped_updates": self.skipped_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._rewards = np.array(state["rewards"])
        self._turn = int(state["turn"])
        self._exploration = float(state["exploration"])
        self._mixture = Mixture(self._mixture.view, np.array(state["mixture"]))
        self.skipped_updates = int(state["skipped_updates"])


def exploration(arms: int, turn: int) -> float:
    """ε_t = min(1/K, sqrt(ln K / (K t))) for K `arms` at `turn` t, from 1."""
    return min(1.0 / arms, math.sqrt(math.log(arms) / (arms * turn)))


def exp3_policy(
    rewards: NDArray[np.float64], temperature: float, floor: float
) -> NDArray[np.float64]:
    """(1 - K floor) softmax(temperature · rewards) + floor, for rewards (K,): (K,), sums to 1."""
    powers = np.exp(temperature * (rewards - rewards.max()))
    policy: NDArray[np.float64] = (1 - len(rewards) * floor) * powers / powers.sum() + floor
    return policy
