"""Mixers by name: the rows of the comparison, each with the repetition budget that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from pipeline import BraidstreamError, Mixture, RepetitionBudget, TargetSet, View
from trainer.mixers.blend import Blend
from trainer.mixers.dga import DGAMixer, ScoreScale
from trainer.mixers.importance import ImportanceMixer, importance_mixture
from trainer.mixers.natural import NaturalMixer
from trainer.mixers.protocol import Mixer
from trainer.mixers.uniform import UniformMixer

Start = Literal["natural", "importance", "uniform"]
Surplus = Literal["mixture", "natural", "importance"]


class UnknownMixerError(BraidstreamError, ValueError):
    """A mixer name that is none, or a mixer that lacks the target it needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixerSettings:
    """A mixer, what is blended into its weights, and its repetition budget."""

    method: Literal["natural", "uniform", "importance", "dga"]
    """Which rule chooses the weights."""
    step_size: float = 5.0
    """η of DGA."""
    update_every: int = 25
    """T_r of DGA, in steps; also how often a blend that moves is renewed."""
    ema: float = 1.0
    """β of DGA-EMA, the share of the newest weights; 1 is no average."""
    score_scale: ScoreScale = "raw"
    """Scores as they are, or in units of their standard deviation over domains; η goes with it."""
    start: Start = "natural"
    """Where DGA's weights begin."""
    start_share: float = 0.1
    """Share of natural proportions in a start from `importance`, so that no domain begins at 0."""
    importance_share: float = 0.0
    """Share of what is sampled that the target's importance-sampling histogram decides."""
    natural_share: float = 0.0
    """Share of what is sampled that is kept for natural proportions, at the start of the run."""
    natural_share_end: float | None = None
    """The same at the end of the run, reached in a straight line; None keeps it as it is."""
    max_passes: float | None = None
    """Bound on the passes over any domain, paced over the run; None is no bound."""
    surplus: Surplus = "mixture"
    """Who gets what a domain at its bound leaves."""
    repeat_decay: float = 0.0
    """Power to which what is left of a domain's budget multiplies its weight; 0 is none."""

    @property
    def learns_from_scores(self) -> bool:
        """Whether alignment has to be measured for this mixer."""
        return self.method == "dga"

    @property
    def needs_target(self) -> bool:
        """Whether there is no such mixer without a target."""
        return self.method not in ("natural", "uniform") or self.blends_histogram

    @property
    def ignores_view(self) -> bool:
        """Whether every view gives the same run: natural proportions look through all of them."""
        return self.method == "natural" and self.max_passes is None and not self.needs_target

    @property
    def blends_histogram(self) -> bool:
        """Whether the target's importance-sampling histogram is part of what is sampled."""
        takes_surplus = self.max_passes is not None and self.surplus == "importance"
        return self.importance_share > 0 or takes_surplus


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
    """The settings called `name`; `UnknownMixerError` lists the names.

    A preset may be varied in its name: `dga-paced+step_size=2+start=importance`.
    """
    preset, *changes = name.split("+")
    if preset not in PRESETS:
        raise UnknownMixerError(
            f"there is no mixer {preset!r}; choose one of {', '.join(PRESETS)}."
        )
    return replace(PRESETS[preset], **dict(_parse_change(name, change) for change in changes))


def _parse_change(name: str, change: str) -> tuple[str, Any]:
    """`field=value` with the value in the type that the field's default shows."""
    field, equals, text = change.partition("=")
    kind = VARIED.get(field)
    if kind is None or not equals:
        raise UnknownMixerError(
            f"{change!r} in the mixer {name!r} is no setting=value; the settings are "
            f"{', '.join(VARIED)}."
        )
    if isinstance(kind, tuple):
        if text not in kind:
            raise UnknownMixerError(f"{change!r} in {name!r}: choose one of {', '.join(kind)}.")
        return field, text
    if text == "none" and field in ("max_passes", "natural_share_end"):
        return field, None
    try:
        return field, kind(text)
    except ValueError:
        raise UnknownMixerError(f"{change!r} in {name!r}: {text!r} is no number.") from None


VARIED: dict[str, type[int] | type[float] | tuple[str, ...]] = {
    "step_size": float,
    "update_every": int,
    "ema": float,
    "score_scale": ("raw", "std"),
    "start": ("natural", "importance", "uniform"),
    "start_share": float,
    "importance_share": float,
    "natural_share": float,
    "natural_share_end": float,
    "max_passes": float,
    "surplus": ("mixture", "natural", "importance"),
    "repeat_decay": float,
}
"""What a name can vary; also the settings that a run's configuration can change."""


class MadeMixer(NamedTuple):
    """A mixer with what stands between it and the stream."""

    mixer: Mixer
    blend: Blend
    budget: RepetitionBudget | None


def make_mixer(
    mixer: str | MixerSettings,
    view: View,
    *,
    num_steps: int,
    batch_size: int,
    target: TargetSet | None = None,
) -> MadeMixer:
    """Build a mixer over `view`, its blend and its budget for a run of `num_steps` batches.

    Raises `UnknownMixerError` for an unknown name or a missing target.
    """
    settings = mixer_settings(mixer) if isinstance(mixer, str) else mixer
    if settings.needs_target and target is None:
        raise UnknownMixerError(
            f"the mixer {settings.method!r} steers towards a target and none was given; name one "
            "with --target NAME, or take the mixer natural or uniform."
        )
    budget = _budget(settings, num_steps)
    blend = Blend(
        num_steps=num_steps,
        batch_size=batch_size,
        natural_share=settings.natural_share,
        natural_share_end=settings.natural_share_end,
        importance_share=settings.importance_share,
        histogram=importance_mixture(view, target)
        if target and settings.blends_histogram
        else None,
        repeat_decay=settings.repeat_decay,
        budget=budget,
        surplus_to_histogram=budget is not None and settings.surplus == "importance",
    )
    return MadeMixer(_mixer(settings, view, target), blend, budget)


def _budget(settings: MixerSettings, num_steps: int) -> RepetitionBudget | None:
    if settings.max_passes is None:
        return None
    # The surplus to the histogram is the blend's; what even that cannot take is spread naturally.
    surplus = "natural" if settings.surplus == "importance" else settings.surplus
    return RepetitionBudget(max_passes=settings.max_passes, num_steps=num_steps, surplus=surplus)


def _mixer(settings: MixerSettings, view: View, target: TargetSet | None) -> Mixer:
    if settings.method == "natural":
        return NaturalMixer(view)
    if settings.method == "uniform":
        return UniformMixer(view)
    assert target is not None
    if settings.method == "importance":
        return ImportanceMixer(view, target)
    return DGAMixer(
        _start(settings, view, target),
        step_size=settings.step_size,
        update_every=settings.update_every,
        ema=settings.ema,
        score_scale=settings.score_scale,
    )


def _start(settings: MixerSettings, view: View, target: TargetSet) -> Mixture:
    if settings.start == "uniform":
        return Mixture.uniform(view)
    natural = Mixture.natural(view)
    if settings.start == "natural":
        return natural
    return importance_mixture(view, target).blend(natural, settings.start_share)
