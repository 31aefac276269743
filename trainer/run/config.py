"""What a training run is told to do; `trainer.run.resolve` turns it into what the run does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline import BraidstreamError
from trainer.health_thresholds import HealthThresholds
from trainer.mixers import READ_BY, measuring_changes
from trainer.words import unknown_word


class ConfigError(BraidstreamError, ValueError):
    """A setting that is out of range or does not fit the others."""


def require(settings: Any, name: str, holds: bool, rule: str) -> None:
    """Raise `ConfigError` unless the setting `name` of `settings` keeps to its rule."""
    if not holds:
        raise ConfigError(f"{name}={getattr(settings, name)!r} must be {rule}.")


def check_words(settings: Any) -> None:
    """Raise `ConfigError` where a setting is none of the words of its type."""
    if unknown := unknown_word(settings):
        name, known = unknown
        require(settings, name, False, f"one of {known}")


def check_measuring(settings: Any) -> None:
    """Raise `ConfigError` where a TrainConfig or SteeringConfig cannot measure alignment as it says."""
    for name in (
        "batch_size",
        "target_batch",
        "sequences_per_domain",
        "sequences_per_distribution",
        "probe_every",
    ):
        require(settings, name, getattr(settings, name) >= 1, "at least 1")
    domains, tokens = settings.measured_domains, settings.measured_tokens
    require(settings, "measured_domains", domains is None or domains >= 1, "at least 1")
    require(settings, "measured_tokens", tokens in (None, 0) or tokens >= 2, "0 or at least 2")
    require(settings, "half_life", settings.half_life > 0, "positive")
    require(settings, "epsilon", settings.epsilon is None or settings.epsilon > 0, "positive")


def unread(settings: Any, method: str) -> list[str]:
    """What a TrainConfig or SteeringConfig gives and a mixer of this method does not read."""
    return [
        name for name, reader in READ_BY.items() if getattr(settings, name) and reader != method
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Settings of one training run. A setting of None is chosen from the others."""

    target: str | None = None
    """Target set that steers the mixture, or several with weights, such as recipes=0.7+medical_qa=0.3;
    natural, uniform, odm and schedule need none."""
    evaluate: tuple[str, ...] = ()
    """Further target sets to evaluate on; without --target and --evaluate, all of the corpus."""
    mixer: str = "importance-fading"
    """Who chooses the mixture: natural, uniform, importance, importance-ratio, importance-paced,
    importance-fading, importance-general, dga, dga-ema, dga-distributions, dga-paced, dga-paced-general,
    doge, odm, schedule. A name can carry changes, such as dga-paced+step_size=2+start=importance."""
    k: int | None = None
    """Number of domains, from 1 to the corpus' leaves; default: the tree's first level."""
    preset: Literal["1m", "14m", "110m", "350m"] = "14m"
    """Size of the model."""
    steps: int = 1200
    """Length of the run in batches."""
    batch_size: int = 64
    """Samples per batch, over all ranks together."""
    seed: int = 0
    """Seed of the model's first weights and of every draw."""

    learning_rate: float = 1e-3
    """Learning rate after warm-up; a cosine takes it down to a tenth."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; default: 100, and at most a tenth of the run."""
    weight_decay: float = 0.1
    """AdamW's weight decay, on matrices."""
    clip_norm: float = 1.0
    """Gradients longer than this are cut to it."""

    step_size: float | None = None
    """DGA's η; default: the mixer's."""
    update_every: int | None = None
    """Steps between updates of the mixture (DGA's T_r); default: the mixer's."""
    ema: float | None = None
    """DGA's β, the share of the newest weights in the average; 1 is no average. Default: the mixer's."""
    continue_from: Literal["weights", "average"] | None = None
    """With an average, where DGA's next update starts: at the weights or at their average; default: the
    mixer's."""
    score_scale: Literal["raw", "std"] | None = None
    """DGA's scores as they are, or in units of their standard deviation over domains (η goes with it);
    default: the mixer's."""
    start: Literal["natural", "importance", "uniform"] | None = None
    """Where the weights of DGA and DoGE begin; default: the mixer's."""
    start_share: float | None = None
    """Share of natural proportions in a start from importance; default: the mixer's."""
    bregman: float | None = None
    """DoGE's μ: the smaller, the faster its weights move; default: the mixer's."""
    toward: Literal["target", "all"] | None = None
    """Whose gradient DoGE aligns with: the target's, or the mean over domains; default: the mixer's."""
    basis: tuple[str, ...] = ()
    """Target sets, or natural, whose histograms dga-distributions weighs; default: all, and natural."""
    weights_file: str | None = None
    """Weights that the mixer schedule replays: lines of step and weights, or a run's metrics.jsonl."""
    replay: Literal["moving", "last"] | None = None
    """What a schedule takes of its file: weights as they moved, or the last ones, frozen from the start on;
    default: the mixer's."""
    histogram: Literal["counted", "smoothed"] | None = None
    """The target's histogram over the domains: its examples as counted, or drawn towards natural proportions
    over the tree as far as they are few; default: the mixer's."""
    importance_share: float | None = None
    """Share of every batch that the target's importance-sampling histogram decides; default: the
    mixer's."""
    natural_share: float | None = None
    """Share of every batch reserved for natural proportions; default: the mixer's."""
    natural_share_end: float | None = None
    """The same at the end of the run, reached in a straight line; default: the mixer's, which may be no
    change."""
    max_passes: float | None = None
    """Bound on the passes over any domain; default: the mixer's, which may be none."""
    surplus: Literal["mixture", "natural", "importance"] | None = None
    """Who gets what a domain at its bound leaves; default: the mixer's."""
    repeat_decay: float | None = None
    """Power to which what is left of a domain's budget multiplies its weight; default: the mixer's."""
    restraint: Literal["full", "capacity"] | None = None
    """Whether the bound on passes and a reserve that moves hold as they are set, or as far as the model could
    learn the target's domains by heart; default: the mixer's."""

    estimator: Literal["difference", "exact", "probe"] = "difference"
    """How alignment is measured: two forward passes, one backward pass per domain, or in the backward pass
    of training batches."""
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
    gradients: Literal["raw", "clip", "cosine"] = "clip"
    """Gradients as they are, the target's clipped to norm 1, or both normalised."""
    epsilon: float | None = None
    """Length of the difference estimator's step, as a share of the parameters' norm."""
    sequences_per_domain: int = 4
    """Samples that stand for a domain when alignment is measured."""
    sequences_per_distribution: int = 32
    """Samples that stand for a histogram of dga-distributions."""
    target_batch: int = 64
    """Target sequences in one target gradient; a smaller set is used whole."""

    log_every: int = 20
    """Steps between records of the training loss."""
    eval_every: int = 100
    """Steps between evaluations; there is one at the end in any case."""
    eval_sequences: int = 256
    """Sequences of each set that an evaluation reads at most."""
    checkpoint_every: int = 200
    """Steps between checkpoints; there is one at the end and after Ctrl-C in any case."""

    health: HealthThresholds = HealthThresholds()  # noqa: RUF009 - frozen
    """From where on a warning is written (`trainer.health`); warnings change nothing in a run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of forward passes; auto is bfloat16 on GPUs that have it. Weights stay float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto is on for GPUs."""
    data_parallel: Literal["replicate", "shard"] = "replicate"
    """What each of several GPUs holds: the whole model (DistributedDataParallel), or a share of its weights
    and of the optimizer's moments (FSDP2), for models that do not fit otherwise."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "eval_every", "eval_sequences", "checkpoint_every"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "seed", 0 <= self.seed < 2**32, "between 0 and 4294967295")
        require(self, "learning_rate", self.learning_rate > 0, "positive")
        require(self, "weight_decay", self.weight_decay >= 0, "0 or more")
        require(self, "clip_norm", self.clip_norm > 0, "positive")
        require(self, "warmup_steps", (self.warmup_steps or 0) >= 0, "0 or more")
        check_words(self)
        check_measuring(self)
        self._check_combination()

    def _check_combination(self) -> None:
        """Refuse ways to measure that do not go together, from options and from the mixer's name."""
        named = measuring_changes(self.mixer)
        estimator = named.get("estimator", self.estimator)
        gradients = named.get("gradients", self.gradients)
        shrinkage = named.get("shrinkage", self.shrinkage)
        measured_domains = named.get("measured_domains", self.measured_domains)
        if estimator != "exact" and gradients == "cosine":
            raise ConfigError(
                "gradients='cosine' divides by the norm of every domain's gradient, which estimator="
                f"{estimator!r} never computes. Take estimator='exact', or gradients='clip'."
            )
        if estimator == "exact" and shrinkage == "tree":
            raise ConfigError(
                "shrinkage='tree' takes scores of single samples, which estimator='exact' does not have. "
                "Take estimator='difference' or 'probe'."
            )
        if self.data_parallel == "shard" and estimator != "difference":
            raise ConfigError(
                "data_parallel='shard' leaves no rank a whole layer, which estimator="
                f"{estimator!r} looks at. Take estimator='difference', or data_parallel='replicate' "
                "where the model fits."
            )
        if measured_domains and estimator != "probe" and shrinkage != "tree":
            raise ConfigError(
                f"measured_domains={measured_domains} leaves domains without a score; give them their "
                "neighbors' with shrinkage='tree'."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, field by field."""
        return {**asdict(self), "evaluate": list(self.evaluate), "basis": list(self.basis)}
