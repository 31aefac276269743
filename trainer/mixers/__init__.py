"""Mixers: who decides what the next batches are drawn from. One file each, one small protocol."""

from trainer.mixers.blend import Blend
from trainer.mixers.dga import DGAMixer
from trainer.mixers.distributions import DistributionMixer
from trainer.mixers.doge import DoGEMixer
from trainer.mixers.fixed import FixedMixer
from trainer.mixers.importance import ImportanceMixer, ImportanceRatioMixer, importance_mixture
from trainer.mixers.make import MadeMixer, basis_mixtures, make_mixer
from trainer.mixers.natural import NaturalMixer
from trainer.mixers.odm import ODMMixer
from trainer.mixers.presets import (
    MEASURED,
    PRESETS,
    READ_BY,
    VARIED,
    MixerSettings,
    UnknownMixerError,
    measuring_changes,
    mixer_settings,
    no_difference,
)
from trainer.mixers.protocol import Mixer, Signal
from trainer.mixers.restraint import Restraint
from trainer.mixers.schedule import ScheduleMixer, read_schedule
from trainer.mixers.smoothing import smoothed_target
from trainer.mixers.uniform import UniformMixer

__all__ = [
    "MEASURED",
    "PRESETS",
    "READ_BY",
    "VARIED",
    "Blend",
    "DGAMixer",
    "DistributionMixer",
    "DoGEMixer",
    "FixedMixer",
    "ImportanceMixer",
    "ImportanceRatioMixer",
    "MadeMixer",
    "Mixer",
    "MixerSettings",
    "NaturalMixer",
    "ODMMixer",
    "Restraint",
    "ScheduleMixer",
    "Signal",
    "UniformMixer",
    "UnknownMixerError",
    "basis_mixtures",
    "importance_mixture",
    "make_mixer",
    "measuring_changes",
    "mixer_settings",
    "no_difference",
    "read_schedule",
    "smoothed_target",
]
