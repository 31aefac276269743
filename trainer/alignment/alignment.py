"""Alignment: how much a training step on each domain would lower the target's loss.

    a_i = <∇L_i(θ), g>,   g = ∇L_target(θ)

A step θ - η∇L_i changes the target's loss by -η a_i to first order, so a positive score means that the
domain helps. This module draws the samples that stand for the domains and for the target and computes
g; `exact.py` and `difference.py` compute the scores from them in two ways that must agree, and `probe.py`
scores the training batch instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import Corpus, TargetSet, View
from pipeline.stream.counter_rng import random_uniform
from trainer.run.batches import micro_batches
from trainer.run.distributed import Ranks
from trainer.run.sharding import (
    is_sharded,
    local_shards,
    return_to_shards,
    sharded_gradient,
    sharded_norm,
)
from trainer.targets import Target

Normalization = Literal["raw", "clip", "cosine"]

_DOMAIN_DRAW, _TARGET_DRAW, _CHOICE_DRAW = 0x646F6D, 0x746172, 0x63686F


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSamples:
    """What one measurement looks at: this rank's share of it."""

    k: int
    """Number of domains of the view."""
    domains: NDArray[np.int64]
    """Shape (m,): the non-empty domains that this rank measures."""
    tokens: NDArray[Any]
    """Shape (m, sequences_per_domain, length): their samples, or how these begin."""
    positions: NDArray[np.int64]
    """Shape (m, sequences_per_domain): where in the corpus these samples stand."""
    target: NDArray[Any]
    """Shape (n, length): this rank's target sequences, all of them from the train split."""
    target_total: int
    """Number of target sequences over all ranks."""
    target_weights: NDArray[np.float64] | None = None
    """Shape (n,): what each counts in the target's loss, over all ranks 1; None is 1/target_total each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The outcome of one measurement, the same on every rank."""

    values: NDArray[np.float64]
    """Shape (k,): a_i, positive where the domain helps the target; 0 for empty domains."""
    target_loss: float
    """Mean loss of the target sequences that were drawn, in nats."""
    target_gradient_norm: float
    """Norm of the target's gradient before clipping."""
    halves: NDArray[np.float64] | None = None
    """Shape (2, k): `values` as either half of the evidence has them, which share none of it; NaN where one
    has seen nothing of a domain. None of a single measurement, which shares nothing with the one before."""


class Estimator(Protocol):
    """Computes alignment scores at the model's present weights, which it leaves as they are."""

    def scores(self, samples: AlignmentSamples) -> Scores:
        """Scores of all domains."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSampler:
    """Draws the samples of a measurement by address (seed, step, domain).

    The stream's cursors know nothing of these draws: measuring more or less often changes no batch,
    and a resumed run measures exactly what it would have measured.
    """

    corpus: Corpus
    view: View
    target: Target
    seed: int
    sequences_per_domain: int = 4
    """Samples per non-empty domain."""
    target_batch: int = 64
    """Target sequences, over several sets in proportion to their weights; a smaller train split is used
    whole."""
    domains_per_draw: int | None = None
    """Domains that one measurement looks at; None is all that have samples."""
    measured_tokens: int | None = None
    """Tokens of every sample, from its beginning on, that are looked at; None is all of them."""
    ranks: Ranks = Ranks()  # noqa: RUF009 - frozen

    @property
    def num_domains(self) -> int:
        """How many domains one measurement looks at, over all ranks."""
        filled = np.count_nonzero(self.view.sizes)
        return filled if self.domains_per_draw is None else min(filled, self.domains_per_draw)

    def draw(self, step: int) -> AlignmentSamples:
        """This rank's part of the measurement before `step`."""
        domains = self._domains(step)[self.ranks.rank :: self.ranks.world_size]
        positions = self.view.positions(domains[:, None], self._samples_of(domains, step))
        return replace(
            self.draw_target(step),
            domains=domains,
            positions=positions,
            tokens=self.read(positions),
        )

    def draw_target(self, step: int) -> AlignmentSamples:
        """The same target sequences as `draw`, and no domain's samples."""
        mine = slice(self.ranks.rank, None, self.ranks.world_size)
        chosen, weights = self._target_sequences(step)
        target = chosen[mine, : self.measured_tokens]
        return AlignmentSamples(
            k=self.view.k,
            domains=np.empty(0, dtype=np.int64),
            positions=np.empty((0, self.sequences_per_domain), dtype=np.int64),
            tokens=np.empty((0, self.sequences_per_domain, target.shape[1]), dtype=target.dtype),
            target=target,
            target_total=len(chosen),
            target_weights=None if weights is None else weights[mine],
        )

    def read(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """What is looked at of the samples at `positions` (m, n): (m, n, length)."""
        tokens = self.corpus.read(positions.ravel())[:, : self.measured_tokens]
        return tokens.reshape(*positions.shape, tokens.shape[-1])  # type: ignore[no-any-return]

    def _domains(self, step: int) -> NDArray[np.int64]:
        """Domains of the measurement before `step`, in order."""
        filled = np.flatnonzero(self.view.sizes)
        if self.num_domains == len(filled):
            return filled
        # One from each of m parts of whole domains: neighbors in the order are neighbors in the tree.
        part = np.arange(self.num_domains + 1)
        edges = part * len(filled) // self.num_domains
        uniform = random_uniform(self.seed, _CHOICE_DRAW, step, part[:-1])
        domains: NDArray[np.int64] = filled[
            edges[:-1] + (uniform * np.diff(edges)).astype(np.int64)
        ]
        return domains

    def _samples_of(self, domains: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """Indices inside each domain, one from each of m equal parts: (domains, m).

        A domain is a range of leaves, so the parts spread the samples over its leaves.
        """
        part = np.arange(self.sequences_per_domain)
        uniform = random_uniform(self.seed, _DOMAIN_DRAW, step, domains[:, None], part)
        sizes = self.view.sizes[domains, None]
        drawn = ((part + uniform) * sizes / self.sequences_per_domain).astype(np.int64)
        return np.minimum(drawn, sizes - 1)  # the product may be rounded up to the size

    def _target_sequences(self, step: int) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """The target's sequences (n, length) over all ranks, and what each counts unless all count alike."""
        if isinstance(self.target, TargetSet):
            return self._rows_of(self.target, step, _TARGET_DRAW, self.target_batch), None
        parts = [
            self._rows_of(part, step, _TARGET_DRAW + number, round(weight * self.target_batch))
            for number, (part, weight) in enumerate(
                zip(self.target.sets, self.target.weights, strict=True)
            )
        ]
        weights = [
            np.full(len(rows), weight / len(rows))
            for rows, weight in zip(parts, self.target.weights, strict=True)
        ]
        return np.concatenate(parts), np.concatenate(weights)

    def _rows_of(self, part: TargetSet, step: int, draw: int, count: int) -> NDArray[Any]:
        """`count` train sequences of one set, at least one; all if there are no more."""
        available, count = len(part.train), max(1, count)
        if available <= count:
            return part.train
        order = np.argsort(random_uniform(self.seed, draw, step, np.arange(available)))
        chosen: NDArray[Any] = part.train[order[:count]]
        return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What both estimators need of a model: its loss per sample, and its parameters."""

    loss: nn.Module
    """tokens int64 (n, length) -> float32 (n,), see `trainer.model.per_sample_loss`."""
    batch_size: int
    """Samples per forward pass."""
    pad_id: int
    device: torch.device
    normalization: Normalization = "clip"
    """`raw`; `clip`: g is cut to norm 1; `cosine`: g and every ∇L_i are divided by their norms."""
    ranks: Ranks = Ranks()  # noqa: RUF009 - frozen

    @property
    def parameters(self) -> list[Tensor]:
        """The trained parameters, in a fixed order."""
        return [parameter for parameter in self.loss.parameters() if parameter.requires_grad]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Measure without dropout, on weights as they are kept: evaluation mode inside, as it was after.

        A score is a small difference between gradients, and masks drawn for one of them and not for the
        other would only add noise. (Hugging Face's models also leave gradient checkpointing off in this
        mode; where memory is short, a smaller `batch_size` takes its place.)
        """
        return_to_shards(self.loss)
        training = [module for module in self.loss.modules() if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    @property
    def shards(self) -> list[Tensor]:
        """What this rank holds of `parameters`, to be read and moved: all of them, unless FSDP2 cut them."""
        return local_shards(self.parameters)

    def passes(self, tokens: NDArray[Any], size: int) -> int:
        """Forward passes that this rank takes at least for `tokens` (n, length), `size` at a time.

        Where ranks gather the weights together, one that has fewer samples takes part in all passes.
        """
        if not is_sharded(self.loss):
            return 0
        return int(self.ranks.gather_array(np.array([-(-len(tokens) // size)])).max())

    def sample_losses(self, batch: Tensor, rows: slice) -> Tensor:
        """Losses of the samples that a micro-batch holds in its first rows: (rows.stop - rows.start,).

        ValueError for a loss that does not tell samples apart.
        """
        losses: Tensor = self.loss(batch)
        if losses.shape != batch.shape[:1]:
            raise ValueError(
                f"of {len(batch)} samples the loss gave a tensor of shape {tuple(losses.shape)}; alignment "
                f"takes one loss of each, of shape ({len(batch)},), as `trainer.TokenLoss` gives them."
            )
        return losses[: rows.stop - rows.start]

    def gradient(
        self,
        tokens: NDArray[Any],
        *,
        total: int,
        size: int,
        weights: NDArray[np.float64] | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Gradient and value of Σ loss / total over the samples of `tokens` (n, length).

        With `weights` (n,) it is Σ weight · loss instead. They go through the model `size` at a time. Of
        sharded parameters it is this rank's shards of the gradient over the samples of all ranks.
        """
        parameters, sharded = self.parameters, is_sharded(self.loss)
        gradient = [torch.zeros_like(shard) for shard in self.shards]
        value = torch.zeros((), device=self.device)
        for batch, rows in micro_batches(
            tokens,
            size=size,
            pad_id=self.pad_id,
            device=self.device,
            at_least=self.passes(tokens, size),
        ):
            losses = self.sample_losses(batch, rows)
            if weights is None:
                loss = losses.sum() / total
            else:
                loss = losses @ torch.from_numpy(weights[rows]).to(losses)
            if sharded:
                parts = sharded_gradient(loss, parameters)
            else:
                # Unlike loss.backward() this leaves .grad alone, and DistributedDataParallel with it.
                parts = [*torch.autograd.grad(loss, parameters, materialize_grads=True)]
            torch._foreach_add_(gradient, parts)
            value += loss.detach()
        return gradient, value

    def norm(self, shards: list[Tensor]) -> float:
        """Euclidean norm of tensors cut like `shards`, over all ranks."""
        if is_sharded(self.loss):
            return float(sharded_norm(shards, self.parameters, self.ranks))
        return float(total_norm(shards))

    def target_gradient(self, samples: AlignmentSamples) -> tuple[list[Tensor], Scores]:
        """The normalised g over all ranks, cut like `shards`, and a record of it with scores still at 0."""
        gradient, loss = self.gradient(
            samples.target,
            total=samples.target_total,
            size=self.batch_size,
            weights=samples.target_weights,
        )
        # Shards have been summed on their way.
        self.ranks.sum_tensors([loss] if is_sharded(self.loss) else [*gradient, loss])
        norm = self.norm(gradient)
        longest = {"raw": math.inf, "clip": 1.0, "cosine": 0.0}[self.normalization]
        if norm > longest:
            torch._foreach_div_(gradient, norm)
        record = Scores(
            values=np.zeros(samples.k), target_loss=float(loss), target_gradient_norm=norm
        )
        return gradient, record


def total_norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, a scalar."""
    norms: list[Tensor] = [torch.linalg.vector_norm(tensor) for tensor in tensors]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def inner_product(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Inner product of two lists of tensors of the same shapes, a scalar."""
    products = [(a * b).sum() for a, b in zip(first, second, strict=True)]
    return torch.stack(products).sum()
