"""Evaluation: losses on target test sets, target train sets and generic held-out text.

Test text is read here and nowhere else in the trainer: what steers (`alignment.py`) sees train splits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import Corpus
from trainer.run.batches import micro_batches
from trainer.run.distributed import Ranks
from trainer.targets import mixed_loss, target_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Mean losses in nats per token; a set without sequences has no loss (None)."""

    target_loss: dict[str, float | None]
    """By target: on its test split."""
    target_train_loss: dict[str, float | None]
    """By target: on its train split."""
    generic_loss: float | None
    """On held-out blocks of the corpus in natural proportions."""
    seconds: float

    @property
    def generalization_gap(self) -> dict[str, float | None]:
        """By target: test loss minus train loss."""
        gaps: dict[str, float | None] = {}
        for name, test in self.target_loss.items():
            train = self.target_train_loss[name]
            gaps[name] = None if test is None or train is None else test - train
        return gaps


class Evaluator:
    """Measures a model on the same sequences every time, at most `max_sequences` of each set."""

    def __init__(
        self,
        corpus: Corpus,
        names: Sequence[str],
        *,
        max_sequences: int,
        batch_size: int,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self._weights = {name: target_weights(name, corpus.target_names) for name in names}
        sets = dict.fromkeys(name for weights in self._weights.values() for name in weights)
        targets = [corpus.target(name) for name in sets]
        self._test = {target.name: evenly(target.test, max_sequences) for target in targets}
        self._train = {target.name: evenly(target.train, max_sequences) for target in targets}
        self._generic = evenly(corpus.heldout, max_sequences)
        self._pad_id = corpus.pad_id
        self._batch_size = batch_size
        self._device = device
        self._ranks = ranks

    def evaluate(self, loss: nn.Module) -> Evaluation:
        """Losses of the model behind `loss` (tokens (n, length) -> (n,)), the same on every rank."""
        started = time.perf_counter()
        return Evaluation(
            target_loss=self._of_targets(loss, self._test),
            target_train_loss=self._of_targets(loss, self._train),
            generic_loss=self._mean(loss, self._generic),
            seconds=time.perf_counter() - started,
        )

    def _of_targets(
        self, loss: nn.Module, sets: dict[str, NDArray[Any]]
    ) -> dict[str, float | None]:
        """By name; the loss on several sets is the weighted mean of theirs."""
        losses = {name: self._mean(loss, rows) for name, rows in sets.items()}
        return {name: mixed_loss(losses, weights) for name, weights in self._weights.items()}

    def _mean(self, loss: nn.Module, tokens: NDArray[Any]) -> float | None:
        """Mean over tokens, so that a last block that is mostly padding counts for what it holds."""
        world_size = self._ranks.world_size
        mine = tokens[self._ranks.rank :: world_size]
        weights = (mine[:, 1:] != self._pad_id).sum(axis=1)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        with torch.no_grad():
            for batch, rows in micro_batches(
                mine,
                size=self._batch_size,
                pad_id=self._pad_id,
                device=self._device,
                # Where weights are gathered, a rank with fewer sequences takes part in all passes.
                at_least=-(-len(tokens) // (world_size * self._batch_size)),
            ):
                losses = loss(batch)[: rows.stop - rows.start].double()
                total += losses @ torch.from_numpy(weights[rows]).to(losses)
        summed, count = self._ranks.sum_array(np.array([float(total), float(weights.sum())]))
        return float(summed / count) if count else None


def evenly(tokens: NDArray[Any], limit: int) -> NDArray[Any]:
    """At most `limit` rows, evenly spaced: a set sorted by anything is still represented as a whole."""
    if len(tokens) <= limit:
        return tokens
    return tokens[np.linspace(0, len(tokens) - 1, limit).astype(np.int64)]
