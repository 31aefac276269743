"""What a steered run is told, whoever trains the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.alignment.alignment import Normalization
from trainer.mixers import MixerSettings, mixer_settings, no_difference
from trainer.run.config import (
    ConfigError,
    check_measuring,
    check_words,
    require,
    unread,
)

MEASURED_TOKENS = 256
"""Of each sample, unless told otherwise: a measurement costs about two steps, however long samples are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeringConfig:
    """How a run is steered; `ConfigError` for a setting that is out of range or that no such mixer reads."""

    num_steps: int
    """Length of the run in global batches."""
    batch_size: int
    """Samples of a global batch, over all ranks."""
    target: str | None = None
    """Target set that steers, or several with weights, `recipes=0.7+medical_qa=0.3`; natural, uniform, odm
    and schedule need none."""
    mixer: str | MixerSettings = "importance-fading"
    """Who chooses the mixture: a name, also one that carries changes (of what is below, too), or settings."""
    k: int | None = None
    """Number of domains; default: the tree's first level."""
    seed: int = 0
    """Seed of every draw."""
    estimator: Literal["difference", "exact", "probe"] = "difference"
    """How alignment is measured: two forward passes, one backward pass per domain, or in the backward pass
    of training batches (`Steering.watching`)."""
    shrinkage: Literal["none", "tree"] | None = None
    """Whether domains with little evidence take their neighbors' scores; default: tree for the probe."""
    half_life: float = 100.0
    """Steps after which an observation of the probe, or under shrinkage, counts half."""
    probe_every: int = 10
    """Steps between training batches that the probe scores."""
    measured_domains: int | None = None
    """Domains that one measurement looks at, spread over the tree; default: all. Fewer take shrinkage."""
    measured_tokens: int | None = None
    """Tokens of every sample, from its beginning on, that a measurement looks at; default: 256, or all of a
    shorter sample. 0 is all. A quarter costs a quarter. The probe takes the target's so."""
    gradients: Normalization = "clip"
    """Gradients as they are, the target's clipped to norm 1, or both normalised."""
    epsilon: float | None = None
    """Length of the difference estimator's step as a share of the parameters' norm; default: what suits
    the loss's `compute_dtype` and the type of what is trained."""
    sequences_per_domain: int = 4
    """Samples that stand for a domain when alignment is measured."""
    sequences_per_distribution: int = 32
    """Samples that stand for a histogram of `dga-distributions`."""
    target_batch: int = 64
    """Target sequences in one target gradient; a smaller set is used whole."""
    measuring_batch: int | None = None
    """Samples per forward pass while measuring; default: a rank's share of the batch."""
    basis: tuple[str, ...] = ()
    """Target sets, or `natural`, that `dga-distributions` weighs; default: all, and `natural`. Other mixers
    refuse them."""
    weights_file: str | None = None
    """Weights that the mixer `schedule` replays; others refuse it."""

    def __post_init__(self) -> None:
        require(self, "num_steps", self.num_steps >= 1, "at least 1")
        size = self.measuring_batch
        require(self, "measuring_batch", size is None or size >= 1, "at least 1")
        check_words(self)
        check_measuring(self)
        settings = mixer_settings(self.mixer) if isinstance(self.mixer, str) else self.mixer
        for name in unread(self, settings.method):
            mixer = self.mixer if isinstance(self.mixer, str) else settings.method
            raise ConfigError(no_difference(name, mixer))

    def tokens_looked_at(self, tokens_per_sample: int) -> int | None:
        """How many tokens of a sample a measurement looks at; None is all of them."""
        wanted = MEASURED_TOKENS if self.measured_tokens is None else self.measured_tokens
        return wanted if 0 < wanted < tokens_per_sample else None

    @property
    def shrinks(self) -> bool:
        """Whether scores are shrunk over the tree."""
        return (self.shrinkage or default_shrinkage(self.estimator)) == "tree"


def default_shrinkage(estimator: str) -> Literal["none", "tree"]:
    """How scores are shrunk unless told otherwise: the probe's are of single samples, wherever they fell."""
    return "tree" if estimator == "probe" else "none"
