"""Training: gradients to mixtures, and the comparison of mixers.

    from trainer import TrainConfig, train
    train(open_corpus("my-corpus"), TrainConfig(target="recipes", mixer="dga"), Path("my-run"))

Names are loaded when they are first used, so that `braidstream … --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.alignment import AlignmentSampler, AlignmentSamples, Estimator, Probe, Scores
    from trainer.config import TrainConfig
    from trainer.dga import mirror_ascent, moving_average
    from trainer.difference import DifferenceEstimator
    from trainer.exact import ExactEstimator
    from trainer.loop import train
    from trainer.mixers import (
        DGAMixer,
        FixedMixer,
        ImportanceMixer,
        Mixer,
        MixerSettings,
        NaturalMixer,
        UniformMixer,
        make_mixer,
    )
    from trainer.model import GPT, GPTConfig, per_sample_loss

_HOME = {
    "AlignmentSampler": "alignment",
    "AlignmentSamples": "alignment",
    "DGAMixer": "mixers",
    "DifferenceEstimator": "difference",
    "Estimator": "alignment",
    "ExactEstimator": "exact",
    "FixedMixer": "mixers",
    "GPT": "model",
    "GPTConfig": "model",
    "ImportanceMixer": "mixers",
    "Mixer": "mixers",
    "MixerSettings": "mixers",
    "NaturalMixer": "mixers",
    "Probe": "alignment",
    "Scores": "alignment",
    "TrainConfig": "config",
    "UniformMixer": "mixers",
    "make_mixer": "mixers",
    "mirror_ascent": "dga",
    "moving_average": "dga",
    "per_sample_loss": "model",
    "train": "loop",
}

__all__ = [
    "GPT",
    "AlignmentSampler",
    "AlignmentSamples",
    "DGAMixer",
    "DifferenceEstimator",
    "Estimator",
    "ExactEstimator",
    "FixedMixer",
    "GPTConfig",
    "ImportanceMixer",
    "Mixer",
    "MixerSettings",
    "NaturalMixer",
    "Probe",
    "Scores",
    "TrainConfig",
    "UniformMixer",
    "make_mixer",
    "mirror_ascent",
    "moving_average",
    "per_sample_loss",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
