"""Training losses by domain, out of the batches as they are trained on: no extra forward pass.

    R_i = mean over the samples s of the last steps of  [s is of domain i] · L_s / π_i

with π what the sample's batch was drawn from: an unbiased estimate of domain i's mean loss from whatever
happened to be drawn (importance weighting, as bandits do it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.run.distributed import Ranks


class DomainLosses:
    """Adds up where the losses are; nothing waits for a GPU until `read`."""

    def __init__(self, k: int, *, ranks: Ranks) -> None:
        self._sums = torch.zeros(k, dtype=torch.float64)
        self._count = 0
        self._ranks = ranks

    def add(
        self,
        losses: Tensor,
        domains: NDArray[np.int64],
        probabilities: NDArray[np.float64],
    ) -> None:
        """This rank's losses (n,) of samples of `domains` (n,), whose batch was drawn from (k,)."""
        drawn = probabilities[domains]
        # A budget's last samples may come from a domain that the batch was not drawn from: no estimate.
        weights = np.divide(1.0, drawn, out=np.zeros_like(drawn), where=drawn > 0)
        self._sums = self._sums.to(losses.device)
        index = torch.from_numpy(domains.astype(np.int64)).to(losses.device)
        weighted = losses.detach().double() * torch.from_numpy(weights).to(losses.device)
        self._sums.index_add_(0, index, weighted)
        self._count += len(domains) * self._ranks.world_size

    def read(self) -> NDArray[np.float64]:
        """R (k,) over all ranks since the last reading, 0 for domains that were not drawn; starts anew.

        Raises ValueError when no losses were added since then.
        """
        if not self._count:
            raise ValueError(
                "the mixer learns from training losses and has seen none since its last update: call "
                "steering.observe(losses, batch.domains) before steering.after_step, with the loss of each "
                "sample."
            )
        sums = self._ranks.sum_array(self._sums.cpu().numpy()) / self._count
        self._sums.zero_()
        self._count = 0
        return sums

    def state_dict(self) -> dict[str, Any]:
        """Sums over all ranks since the last reading; every rank has to call it."""
        sums = self._ranks.sum_array(self._sums.cpu().numpy())
        return {"sums": sums.tolist(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, on any number of ranks: the first takes the sums."""
        sums = torch.tensor(state["sums"], dtype=torch.float64)
        self._sums.copy_(sums if self._ranks.is_first else torch.zeros_like(sums))
        self._count = int(state["count"])
