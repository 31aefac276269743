"""Alignment from the batches that are trained on: no samples are drawn to be measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainer.alignment.alignment import AlignmentSampler, Probe, Scores
from trainer.alignment.leaf_alignment import LeafAlignment
from trainer.alignment.probe import BatchProbe


class ProbedAlignment:
    """Scores every `every`-th batch in its own backward pass and keeps the samples' scores per leaf.

    The target's gradient is taken anew for every batch that is scored.
    """

    def __init__(
        self,
        leaves: LeafAlignment,
        sampler: AlignmentSampler,
        probe: Probe,
        *,
        every: int,
    ) -> None:
        if every < 1:
            raise ValueError(f"probe_every={every!r} must be at least 1 step.")
        self._leaves, self._sampler, self._probe = leaves, sampler, probe
        self._every = every
        self._batch_probe = BatchProbe(probe.loss)
        self._direction: tuple[int, list[Tensor]] | None = None
        self._target = (math.nan, math.nan)
        """Loss and gradient norm of the target when its gradient was last taken."""
        self._watched = False

    def scores_batch(self, step: int) -> bool:
        """Whether it is this batch's turn."""
        return step > 0 and step % self._every == 0

    @contextmanager
    def watching(
        self, step: int, positions: NDArray[np.int64], loss_scale: float | None
    ) -> Iterator[None]:
        """Score the forward and backward pass on the samples at `positions`, if it is `step`'s turn."""
        self._watched = True
        if not self.scores_batch(step):
            self._direction = None  # as large as the model
            yield
            return
        direction = self._direction_at(step)
        with self._batch_probe.scoring(
            direction, samples=len(positions), loss_scale=loss_scale
        ) as scored:
            yield
        found = np.stack([positions, scored.values.double().cpu().numpy()])
        of_ranks = self._probe.ranks.gather_array(found).swapaxes(0, 1).reshape(2, -1)
        self._leaves.observe(step, of_ranks[0].astype(np.int64), of_ranks[1])

    def scores(self, step: int) -> Scores:
        """What the batches up to now say of the domains.

        Before the first one that was scored all scores are equal. Raises `ValueError` when training never
        passed inside `watching`.
        """
        if not self._watched:
            raise ValueError(
                "estimator='probe' has seen no training step: put forward and backward pass inside "
                "`with steering.watching(batch.step, batch.positions):`, or take "
                "estimator='difference'."
            )
        loss, norm = self._target
        return Scores(
            values=self._leaves.read(),
            target_loss=loss,
            target_gradient_norm=norm,
            halves=self._leaves.read_halves(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        target = [value if math.isfinite(value) else None for value in self._target]
        return {
            "leaves": self._leaves.state_dict(),
            "target": target,
            "watched": self._watched,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._leaves.load_state_dict(state["leaves"])
        loss, norm = (math.nan if value is None else value for value in state["target"])
        self._target = (loss, norm)
        self._watched = bool(state["watched"])

    def _direction_at(self, step: int) -> list[Tensor]:
        """g before the optimizer's step, once for all micro-batches of a batch."""
        if self._direction is None or self._direction[0] != step:
            with self._probe.evaluating():
                gradient, record = self._probe.target_gradient(self._sampler.draw_target(step))
            self._direction = (step, gradient)
            self._target = (record.target_loss, record.target_gradient_norm)
        return self._direction[1]
