"""Alignment from samples that are drawn to be measured, when the mixer asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.alignment.alignment import Estimator, Scores
from trainer.alignment.difference import DifferenceEstimator
from trainer.alignment.leaf_alignment import LeafAlignment
from trainer.alignment.measurement import Sampler


class MeasuredAlignment:
    """Scores of one measurement, which nothing of an earlier one is in."""

    def __init__(self, sampler: Sampler, estimator: Estimator) -> None:
        self._sampler, self._estimator = sampler, estimator

    def scores_batch(self, step: int) -> bool:
        """Never."""
        return False

    @contextmanager
    def watching(
        self, step: int, positions: NDArray[np.int64], loss_scale: float | None
    ) -> Iterator[None]:
        """Training is not looked at."""
        yield

    def scores(self, step: int) -> Scores:
        """Measure at the present weights."""
        return self._estimator.scores(self._sampler.draw(step))

    def state_dict(self) -> dict[str, Any]:
        """Measurements are drawn by address and have no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was saved."""


class ShrunkAlignment(MeasuredAlignment):
    """Scores of all measurements up to now, kept per leaf and shrunk over the tree."""

    def __init__(
        self, leaves: LeafAlignment, sampler: Sampler, estimator: DifferenceEstimator
    ) -> None:
        super().__init__(sampler, estimator)
        self._leaves, self._difference = leaves, estimator

    def scores(self, step: int) -> Scores:
        """Measure at the present weights and join it to what is known."""
        samples = self._sampler.draw(step)
        found, record = self._difference.sample_scores(samples)
        # A rank measured the rows `domains`; all others hold zeros there.
        rows = np.zeros((3, samples.k, samples.positions.shape[1]))
        rows[:, samples.domains] = np.stack([np.ones_like(found), samples.positions, found])
        measured, positions, scores = self._difference.probe.ranks.sum_array(rows)
        there = measured > 0
        self._leaves.observe(step, positions[there].astype(np.int64), scores[there])
        return replace(record, values=self._leaves.read(), halves=self._leaves.read_halves())

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return self._leaves.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._leaves.load_state_dict(state)
