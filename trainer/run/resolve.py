"""Fill in what a configuration leaves open, so that config.json says what a run really did."""

from __future__ import annotations

from dataclasses import replace

import torch

from pipeline import Corpus
from trainer.alignment.difference import DEFAULT_EPSILON
from trainer.mixers import (
    MEASURED,
    VARIED,
    MixerSettings,
    measuring_changes,
    mixer_settings,
    no_difference,
)
from trainer.run.config import ConfigError, TrainConfig, unread
from trainer.steering_config import SteeringConfig, default_shrinkage
from trainer.targets import target_weights

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve(config: TrainConfig, corpus: Corpus, device: torch.device) -> TrainConfig:
    """`config` with every setting that depends on others, on the corpus or on `device` filled in.

    What the mixer's name says of measuring alignment goes before what `config` says. A mixer's setting that
    the chosen one does not use stays as it is, and is a `ConfigError` where it was given; what else has no
    effect (`idle_settings`) goes back to its default, so that runs that do the same are the same. Resolving
    again changes nothing.
    """
    if unused := unused_settings(config):
        raise ConfigError(no_difference(unused[0], config.mixer))
    if chosen_settings(config).method == "schedule" and config.weights_file is None:
        raise ConfigError(
            f"the mixer {config.mixer!r} reads its weights from a file and none was given; name one with "
            "--weights-file, for instance the metrics.jsonl of another run."
        )
    if config.target is None and chosen_settings(config).needs_target:
        known = ", ".join(corpus.target_names) or "the corpus has none"
        raise ConfigError(
            f"the mixer {config.mixer!r} steers towards a target and none was given; name one with --target "
            f"({known}), or take --mixer natural or uniform."
        )
    config = replace(config, **measuring_changes(config.mixer))
    defaults = TrainConfig()
    config = replace(config, **{name: getattr(defaults, name) for name in idle_settings(config)})
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
    filled = {name: getattr(settings, name) for name in settings.uses}
    if settings.signal == "nothing":
        filled.pop("update_every", None)  # a moving blend's has never been recorded
    config = replace(config, **filled)
    if settings.signal == "alignment" and config.shrinkage is None:
        config = replace(config, shrinkage=default_shrinkage(config.estimator))
    if settings.signal == "alignment" and config.measured_tokens is None:
        looked_at = steering_config(config).tokens_looked_at(corpus.tokens_per_sample)
        config = replace(config, measured_tokens=looked_at)
    measures = settings.signal == "alignment" and config.estimator == "difference"
    if measures and config.epsilon is None:
        config = replace(config, epsilon=DEFAULT_EPSILON[PRECISIONS[config.precision]])
    return config


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


def unused_settings(config: TrainConfig) -> list[str]:
    """Settings of mixers that are given and make no difference to this one."""
    settings = chosen_settings(config)
    given = [name for name in VARIED if getattr(config, name) is not None]
    return [name for name in given if name not in settings.uses] + unread(config, settings.method)


def learns_nothing(config: TrainConfig) -> str:
    """Why the mixer's weights stay where they begin in this run, in a sentence; empty where they do not."""
    settings = chosen_settings(config)
    config = replace(config, **measuring_changes(config.mixer))
    probes = settings.signal == "alignment" and config.estimator == "probe"
    first_known = config.probe_every if probes else 0
    last_update = (config.steps - 1) // settings.update_every * settings.update_every
    if settings.signal == "nothing" or last_update > first_known:
        return ""
    scored = f" from each {config.probe_every}th batch" if probes else ""
    option = "--update-every" + (" and --probe-every" if probes else "")
    return (
        f"{config.mixer} learns every {settings.update_every} steps{scored}, and the run has {config.steps}: "
        f"its weights stay where they begin. Train for more, or set {option}."
    )


def idle_settings(config: TrainConfig) -> list[str]:
    """Settings of measuring that differ from their defaults and change nothing in this run."""
    settings = chosen_settings(config)
    config = replace(config, **measuring_changes(config.mixer))
    distributions, probes = settings.method == "dga-distributions", config.estimator == "probe"
    shrinks = (config.shrinkage or default_shrinkage(config.estimator)) == "tree"
    used = {
        "half_life": probes or shrinks,
        "probe_every": probes,
        "measured_domains": not (probes or distributions),
        "epsilon": config.estimator == "difference",
        "sequences_per_domain": not (probes or distributions),
        "sequences_per_distribution": distributions and not probes,
        "target_batch": settings.toward == "target",  # of all domains there is no target to draw
    }
    defaults = TrainConfig()
    return [
        name
        for name in MEASURED
        if getattr(config, name) != getattr(defaults, name)
        and not (used.get(name, True) and settings.signal == "alignment")
    ]
