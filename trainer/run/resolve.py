"""Fill in what a configuration leaves open, so that config.json says what a run really did."""

from __future__ import annotations

from dataclasses import replace

import torch

from pipeline import Corpus
from trainer.alignment.difference import DEFAULT_EPSILON
from trainer.mixers import VARIED, MixerSettings, mixer_settings
from trainer.run.config import TrainConfig
from trainer.steering_config import SteeringConfig
from trainer.targets import target_weights

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve(config: TrainConfig, corpus: Corpus, device: torch.device) -> TrainConfig:
    """`config` with every setting that depends on others, on the corpus or on `device` filled in.

    What the chosen mixer or estimator does not use stays None. Resolving again changes nothing.
    """
    steering = [] if config.target is None else [config.target]
    targets = dict.fromkeys(
        [
            *steering,
            *(name for text in steering for name in target_weights(text, corpus.target_names)),
            *config.evaluate,
        ]
    )
    config = replace(config, evaluate=tuple(targets) or corpus.target_names)
    if config.k is None:
        config = replace(config, k=corpus.domains(level=1).k)
    if config.warmup_steps is None:
        config = replace(config, warmup_steps=min(100, config.steps // 10))
    if config.precision == "auto":
        good = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        config = replace(config, precision="bfloat16" if good else "float32")
    settings = chosen_settings(config)
    config = replace(config, **{name: getattr(settings, name) for name in _used_by(settings)})
    if settings.signal == "alignment" and config.shrinkage is None:
        config = replace(config, shrinkage="tree" if config.estimator == "probe" else "none")
    measures = settings.signal == "alignment" and config.estimator == "difference"
    if measures and config.epsilon is None:
        config = replace(config, epsilon=DEFAULT_EPSILON[PRECISIONS[config.precision]])
    return config


def _used_by(settings: MixerSettings) -> list[str]:
    """Settings that make a difference to this mixer."""
    used = ["importance_share", "natural_share", "natural_share_end", "max_passes"]
    if settings.max_passes is not None:
        used += ["surplus", "repeat_decay"]
    if settings.signal != "nothing":
        used.append("update_every")
    if settings.method in ("dga", "dga-distributions"):
        used += ["step_size", "ema", "score_scale", "start"]
    if settings.method == "doge":
        used += ["bregman", "toward", "start"]
    if "start" in used and settings.start == "importance":
        used.append("start_share")
    return used


def steering_config(config: TrainConfig) -> SteeringConfig:
    """What steering has to know of a resolved configuration."""
    return SteeringConfig(
        num_steps=config.steps,
        batch_size=config.batch_size,
        target=config.target,
        mixer=chosen_settings(config),
        k=config.k,
        seed=config.seed,
        estimator=config.estimator,
        shrinkage=config.shrinkage,
        half_life=config.half_life,
        probe_every=config.probe_every,
        measured_domains=config.measured_domains,
        measured_tokens=config.measured_tokens,
        gradients=config.gradients,
        epsilon=config.epsilon,
        sequences_per_domain=config.sequences_per_domain,
        sequences_per_distribution=config.sequences_per_distribution,
        target_batch=config.target_batch,
        basis=config.basis,
        weights_file=config.weights_file,
    )


def chosen_settings(config: TrainConfig) -> MixerSettings:
    """The settings of `config.mixer`, changed where the configuration says so."""
    given = {name: getattr(config, name) for name in VARIED if getattr(config, name) is not None}
    return replace(mixer_settings(config.mixer), **given)
