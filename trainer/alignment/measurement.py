"""What a measurement of alignment looks at, and with what.

`AlignmentSampler` draws the samples of every domain and of the target. Here are two ways to measure
something else with the same estimators, which only see rows of samples and a target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import Corpus, TargetSet, View
from pipeline.stream.counter_rng import random_uniform
from trainer.alignment.alignment import AlignmentSampler, AlignmentSamples, Estimator, Probe
from trainer.alignment.difference import DifferenceEstimator, default_epsilon
from trainer.alignment.exact import ExactEstimator
from trainer.run.distributed import Ranks
from trainer.steering_config import SteeringConfig
from trainer.targets import Target

_BASIS_DRAW, _SAMPLE_DRAW = 0x626173, 0x736D70


class Sampler(Protocol):
    """Draws what one measurement looks at, by address: the same for the same step."""

    def draw(self, step: int) -> AlignmentSamples:
        """This rank's part of the measurement before `step`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DistributionSampler:
    """Samples of N histograms over the domains instead of samples of the domains."""

    inner: AlignmentSampler
    """Draws the target; knows corpus, view, seed and ranks."""
    basis: NDArray[np.float64]
    """Shape (N, k): histograms p_j, each sums to 1."""
    sequences: int = 32
    """Samples that stand for a histogram."""

    def draw(self, step: int) -> AlignmentSamples:
        """This rank's histograms, in turn; row j of the scores is that of p_j."""
        ranks, view = self.inner.ranks, self.inner.view
        rows = np.arange(len(self.basis))[ranks.rank :: ranks.world_size]
        part = np.arange(self.sequences)
        seed = self.inner.seed
        domains = np.empty((len(rows), self.sequences), dtype=np.int64)
        for place, row in enumerate(rows):
            # One from each of m equal parts of the histogram: counts stay close to m · p.
            points = (part + random_uniform(seed, _BASIS_DRAW, step, row, part)) / self.sequences
            cumulative = self.basis[row].cumsum()
            drawn = np.searchsorted(cumulative, points * cumulative[-1], side="right")
            domains[place] = np.minimum(drawn, np.flatnonzero(self.basis[row])[-1])
        uniform = random_uniform(seed, _SAMPLE_DRAW, step, rows[:, None], part)
        sizes = view.sizes[domains]
        index = np.minimum((uniform * sizes).astype(np.int64), sizes - 1)
        positions = view.positions(domains, index)
        return replace(
            self.inner.draw_target(step),
            k=len(self.basis),
            domains=rows,
            positions=positions,
            tokens=self.inner.read(positions),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TowardAllSampler:
    """The samples of the domains are the target too: their gradient is the mean over those that are drawn."""

    inner: AlignmentSampler

    def draw(self, step: int) -> AlignmentSamples:
        """This rank's domains, and their samples once more as its share of the target."""
        samples = self.inner.draw(step)
        return replace(
            samples,
            target=samples.tokens.reshape(-1, samples.tokens.shape[-1]),
            target_total=self.inner.num_domains * self.inner.sequences_per_domain,
            target_weights=None,
        )


def make_sampler(
    config: SteeringConfig,
    corpus: Corpus,
    view: View,
    target: Target | None,
    *,
    ranks: Ranks,
    basis: NDArray[np.float64] | None = None,
    toward: Literal["target", "all"] = "target",
) -> Sampler:
    """Draws for domains, or for the histograms `basis` (N, k); against `target`, or all domains."""
    if target is None:
        target = _no_target(corpus)
    sampler = AlignmentSampler(
        corpus=corpus,
        view=view,
        target=target,
        seed=config.seed,
        sequences_per_domain=config.sequences_per_domain,
        target_batch=config.target_batch,
        domains_per_draw=config.measured_domains,
        measured_tokens=config.tokens_looked_at(corpus.tokens_per_sample),
        ranks=ranks,
    )
    if toward == "all":
        return TowardAllSampler(inner=sampler)
    if basis is not None:
        return DistributionSampler(
            inner=sampler, basis=basis, sequences=config.sequences_per_distribution
        )
    return sampler


def make_estimator(
    config: SteeringConfig, corpus: Corpus, loss: nn.Module, *, ranks: Ranks
) -> Estimator:
    """The estimator that `config` names, looking through `loss`."""
    probe = make_probe(config, corpus, loss, ranks=ranks)
    if config.estimator == "exact":
        return ExactEstimator(probe=probe)
    epsilon = chosen_epsilon(loss) if config.epsilon is None else config.epsilon
    return DifferenceEstimator(probe=probe, epsilon=epsilon)


def chosen_epsilon(loss: nn.Module) -> float:
    """The step that suits the type of what is trained and what the loss says that it computes in."""
    weights = next((each.dtype for each in loss.parameters() if each.requires_grad), torch.float32)
    # The second is `TokenLoss`'s.
    return default_epsilon(weights, getattr(loss, "compute_dtype", weights))


def make_probe(config: SteeringConfig, corpus: Corpus, loss: nn.Module, *, ranks: Ranks) -> Probe:
    """What estimators look through, on the device that the model is on now.

    A forward pass takes as many samples as one of training. Of shorter ones it takes as many tokens, but
    no more samples than a target gradient: missing ones would be filled up with padding. Raises ValueError
    where nothing of the model is trained.
    """
    if not any(parameter.requires_grad for parameter in loss.parameters()):
        raise ValueError(
            "no parameter of the loss requires a gradient, and alignment is measured on those that do. Give "
            "Steering the loss of the model that is trained."
        )
    batch_size = max(1, config.batch_size // ranks.world_size)
    tokens = config.tokens_looked_at(corpus.tokens_per_sample)
    if tokens is not None:
        shorter = corpus.tokens_per_sample // tokens
        batch_size = max(batch_size, min(shorter * batch_size, config.target_batch))
    return Probe(
        loss=loss,
        batch_size=config.measuring_batch or batch_size,
        pad_id=corpus.pad_id,
        device=next(loss.parameters()).device,
        normalization=config.gradients,
        ranks=ranks,
    )


def _no_target(corpus: Corpus) -> TargetSet:
    nothing = np.empty((0, corpus.tokens_per_sample), dtype=np.int64)
    return TargetSet(
        name="all domains",
        train=nothing,
        train_documents=0,
        test=nothing,
        leaf_histogram=np.zeros(corpus.num_leaves),
    )
