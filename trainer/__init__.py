"""Training: gradients to mixtures, and the comparison of mixers.

    from trainer import TrainConfig, train
    train(open_corpus("my-corpus"), TrainConfig(target="recipes", mixer="dga"), Path("my-run"))

Names are loaded when they are first used, so that `braidstream … --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.alignment.alignment import (
        AlignmentSampler,
        AlignmentSamples,
        Estimator,
        Probe,
        Scores,
    )
    from trainer.alignment.difference import DifferenceEstimator
    from trainer.alignment.exact import ExactEstimator
    from trainer.alignment.probe import BatchProbe
    from trainer.causal_lm import CausalLM
    from trainer.dga import mirror_ascent, moving_average
    from trainer.health_thresholds import HealthThresholds
    from trainer.mixers import (
        Blend,
        DGAMixer,
        DistributionMixer,
        DoGEMixer,
        FixedMixer,
        ImportanceMixer,
        ImportanceRatioMixer,
        Mixer,
        MixerSettings,
        NaturalMixer,
        ODMMixer,
        ScheduleMixer,
        UniformMixer,
        basis_mixtures,
        make_mixer,
        read_schedule,
    )
    from trainer.model import GPT, GPTConfig, TokenLoss, per_sample_loss
    from trainer.run.config import TrainConfig
    from trainer.run.distributed import Ranks
    from trainer.run.loop import train
    from trainer.steering import Renewal, Steering
    from trainer.steering_config import SteeringConfig

_HOME = {
    "AlignmentSampler": "alignment.alignment",
    "AlignmentSamples": "alignment.alignment",
    "BatchProbe": "alignment.probe",
    "Blend": "mixers",
    "CausalLM": "causal_lm",
    "DGAMixer": "mixers",
    "DifferenceEstimator": "alignment.difference",
    "DistributionMixer": "mixers",
    "DoGEMixer": "mixers",
    "Estimator": "alignment.alignment",
    "ExactEstimator": "alignment.exact",
    "FixedMixer": "mixers",
    "GPT": "model",
    "GPTConfig": "model",
    "HealthThresholds": "health_thresholds",
    "ImportanceMixer": "mixers",
    "ImportanceRatioMixer": "mixers",
    "Mixer": "mixers",
    "MixerSettings": "mixers",
    "NaturalMixer": "mixers",
    "ODMMixer": "mixers",
    "Probe": "alignment.alignment",
    "Ranks": "run.distributed",
    "Renewal": "steering",
    "ScheduleMixer": "mixers",
    "Scores": "alignment.alignment",
    "Steering": "steering",
    "SteeringConfig": "steering_config",
    "TokenLoss": "model",
    "TrainConfig": "run.config",
    "UniformMixer": "mixers",
    "basis_mixtures": "mixers",
    "make_mixer": "mixers",
    "mirror_ascent": "dga",
    "moving_average": "dga",
    "per_sample_loss": "model",
    "read_schedule": "mixers",
    "train": "run.loop",
}

__all__ = [
    "GPT",
    "AlignmentSampler",
    "AlignmentSamples",
    "BatchProbe",
    "Blend",
    "CausalLM",
    "DGAMixer",
    "DifferenceEstimator",
    "DistributionMixer",
    "DoGEMixer",
    "Estimator",
    "ExactEstimator",
    "FixedMixer",
    "GPTConfig",
    "HealthThresholds",
    "ImportanceMixer",
    "ImportanceRatioMixer",
    "Mixer",
    "MixerSettings",
    "NaturalMixer",
    "ODMMixer",
    "Probe",
    "Ranks",
    "Renewal",
    "ScheduleMixer",
    "Scores",
    "Steering",
    "SteeringConfig",
    "TokenLoss",
    "TrainConfig",
    "UniformMixer",
    "basis_mixtures",
    "make_mixer",
    "mirror_ascent",
    "moving_average",
    "per_sample_loss",
    "read_schedule",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
