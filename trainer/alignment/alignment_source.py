"""Where a mixer's alignment scores come from: measured on drawn samples, or probed in training."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pipeline import BraidstreamError, Corpus, View
from trainer.alignment.alignment import AlignmentSampler, Scores
from trainer.alignment.difference import DifferenceEstimator
from trainer.alignment.leaf_alignment import LeafAlignment
from trainer.alignment.measured_alignment import MeasuredAlignment, ShrunkAlignment
from trainer.alignment.measurement import make_estimator, make_probe, make_sampler
from trainer.alignment.probed_alignment import ProbedAlignment
from trainer.mixers import MixerSettings
from trainer.run.distributed import Ranks
from trainer.steering_config import SteeringConfig
from trainer.targets import Target


class AlignmentError(BraidstreamError, ValueError):
    """Settings of the estimator that do not fit each other or the mixer."""


class AlignmentSource(Protocol):
    """Gives scores to a mixer, and may look at training to have them."""

    def scores_batch(self, step: int) -> bool:
        """Whether `watching` looks at batch `step`."""
        ...

    def watching(
        self, step: int, positions: NDArray[np.int64], loss_scale: float | None
    ) -> AbstractContextManager[None]:
        """Around the forward and backward pass of the samples at `positions` (n,) in batch `step`."""
        ...

    def scores(self, step: int) -> Scores:
        """Scores before the batch at `step`, one per domain or per basis histogram."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What later scores depend on, as plain JSON types."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        ...


def make_alignment_source(
    config: SteeringConfig,
    corpus: Corpus,
    view: View,
    target: Target | None,
    loss: nn.Module,
    *,
    settings: MixerSettings,
    ranks: Ranks,
    basis: NDArray[np.float64] | None,
) -> AlignmentSource:
    """The source that `config` describes, for scores of the domains or of the histograms `basis`.

    Raises `AlignmentError` for a combination that cannot be had.
    """
    probes, shrinks = config.estimator == "probe", config.shrinks
    sampler = make_sampler(
        config,
        corpus,
        view,
        target,
        ranks=ranks,
        basis=None if probes else basis,
        toward=settings.toward,
    )
    if not probes and not shrinks:
        _require(
            config.measured_domains is None,
            f"measured_domains={config.measured_domains} leaves domains without a score; shrinkage="
            "'tree' gives them their neighbors'.",
        )
        estimator = make_estimator(config, corpus, loss, ranks=ranks)
        return MeasuredAlignment(sampler, estimator)
    leaves = LeafAlignment(
        corpus,
        view,
        half_life=config.half_life,
        shrinkage="tree" if shrinks else "none",
        basis=basis,
    )
    if not probes:
        estimator = make_estimator(config, corpus, loss, ranks=ranks)
        if not isinstance(estimator, DifferenceEstimator):
            raise AlignmentError(
                f"shrinkage='tree' takes scores of single samples, which estimator={config.estimator!r} "
                "does not have. Take estimator='difference' or 'probe'."
            )
        return ShrunkAlignment(leaves, sampler, estimator)
    _require(
        isinstance(sampler, AlignmentSampler),
        "estimator='probe' draws no samples of the domains, which toward='all' needs as its target. Take "
        "estimator='difference', or toward='target'.",
    )
    _require(
        config.gradients != "cosine",
        "gradients='cosine' divides by the norm of every sample's gradient, which estimator='probe' never "
        "computes. Take estimator='exact', or gradients='clip'.",
    )
    assert isinstance(sampler, AlignmentSampler)
    probe = make_probe(config, corpus, loss, ranks=ranks)
    return ProbedAlignment(leaves, sampler, probe, every=config.probe_every)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise AlignmentError(rule)
