"""Mixers: who decides what the next batches are drawn from. One file each, one small protocol."""

from trainer.mixers.dga import DGAMixer
from trainer.mixers.fixed import FixedMixer
from trainer.mixers.importance import ImportanceMixer
from trainer.mixers.natural import NaturalMixer
from trainer.mixers.presets import (
    PRESETS,
    MixerSettings,
    UnknownMixerError,
    make_mixer,
    mixer_settings,
)
from trainer.mixers.protocol import Mixer
from trainer.mixers.uniform import UniformMixer

__all__ = [
    "PRESETS",
    "DGAMixer",
    "FixedMixer",
    "ImportanceMixer",
    "Mixer",
    "MixerSettings",
    "NaturalMixer",
    "UniformMixer",
    "UnknownMixerError",
    "make_mixer",
    "mixer_settings",
]
