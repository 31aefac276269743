"""Mixers by name: the rows of the comparison, each with the repetition budget that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline import BraidstreamError, RepetitionBudget, TargetSet, View
from trainer.mixers.dga import DGAMixer
from trainer.mixers.importance import ImportanceMixer
from trainer.mixers.natural import NaturalMixer
from trainer.mixers.protocol import Mixer
from trainer.mixers.uniform import UniformMixer


class UnknownMixerError(BraidstreamError, ValueError):
    """A mixer name that is none, or a mixer that lacks the target it needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixerSettings:
    """A mixer and its repetition budget."""

    method: Literal["natural", "uniform", "importance", "dga"]
    """Which rule chooses the weights."""
    step_size: float = 5.0
    """η of DGA."""
    update_every: int = 25
    """T_r of DGA, in steps."""
    ema: float = 1.0
    """β of DGA-EMA, the share of the newest weights; 1 is no average."""
    natural_share: float = 0.0
    """Share of what is sampled that is kept for natural proportions."""
    max_passes: float | None = None
    """Bound on the passes over any domain, paced over the run; None is no bound."""
    surplus: Literal["mixture", "natural"] = "mixture"
    """Who gets what a domain at its bound leaves."""

    @property
    def learns_from_scores(self) -> bool:
        """Whether alignment has to be measured for this mixer."""
        return self.method == "dga"


PRESETS: dict[str, MixerSettings] = {
    "natural": MixerSettings(method="natural"),
    "uniform": MixerSettings(method="uniform"),
    "importance": MixerSettings(method="importance"),
    "importance-paced": MixerSettings(method="importance", max_passes=8, surplus="natural"),
    "dga": MixerSettings(method="dga"),
    "dga-ema": MixerSettings(method="dga", ema=0.1),
    "dga-paced": MixerSettings(method="dga", max_passes=8, surplus="mixture"),
    "dga-paced-general": MixerSettings(
        method="dga", step_size=1.5, natural_share=0.1, max_passes=8, surplus="natural"
    ),
}


def mixer_settings(name: str) -> MixerSettings:
    """The settings called `name`; `UnknownMixerError` lists the names."""
    if name not in PRESETS:
        raise UnknownMixerError(f"there is no mixer {name!r}; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def make_mixer(
    mixer: str | MixerSettings, view: View, *, num_steps: int, target: TargetSet | None = None
) -> tuple[Mixer, RepetitionBudget | None]:
    """Build a mixer over `view` and the budget for a run of `num_steps` batches.

    Raises `UnknownMixerError` for an unknown name or a missing target.
    """
    settings = mixer_settings(mixer) if isinstance(mixer, str) else mixer
    budget = None
    if settings.max_passes is not None:
        budget = RepetitionBudget(
            max_passes=settings.max_passes, num_steps=num_steps, surplus=settings.surplus
        )
    if settings.method == "natural":
        return NaturalMixer(view), budget
    if settings.method == "uniform":
        return UniformMixer(view, natural_share=settings.natural_share), budget
    if target is None:
        raise UnknownMixerError(
            f"the mixer {settings.method!r} steers towards a target and none was given; name one "
            "with --target NAME, or take the mixer natural or uniform."
        )
    if settings.method == "importance":
        return ImportanceMixer(view, target, natural_share=settings.natural_share), budget
    dga = DGAMixer(
        view,
        step_size=settings.step_size,
        update_every=settings.update_every,
        ema=settings.ema,
        natural_share=settings.natural_share,
    )
    return dga, budget
