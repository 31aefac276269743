"""Mixers: who decides what the next batches are drawn from. One file each, one small protocol."""

from trainer.mixers.blend import Blend
from trainer.mixers.dga import DGAMixer
from trainer.mixers.fixed import FixedMixer
from trainer.mixers.importance import ImportanceMixer, importance_mixture
from trainer.mixers.natural import NaturalMixer
from trainer.mixers.presets import (
    PRESETS,
    VARIED,
    MadeMixer,
    MixerSettings,
    UnknownMixerError,
    make_mixer,
    mixer_settings,
)
from trainer.mixers.protocol import Mixer
from trainer.mixers.uniform import UniformMixer

__all__ = [
    "PRESETS",
    "VARIED",
    "Blend",
    "DGAMixer",
    "FixedMixer",
    "ImportanceMixer",
    "MadeMixer",
    "Mixer",
    "MixerSettings",
    "NaturalMixer",
    "UniformMixer",
    "UnknownMixerError",
    "importance_mixture",
    "make_mixer",
    "mixer_settings",
]
