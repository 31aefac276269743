"""Mixers by name: the rows of the comparison, each with the repetition budget that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline import BraidstreamError
from trainer.mixers.mirror import ScoreScale
from trainer.mixers.protocol import Signal

Method = Literal[
    "natural",
    "uniform",
    "importance",
    "importance-ratio",
    "dga",
    "dga-distributions",
    "doge",
    "odm",
    "schedule",
]
Start = Literal["natural", "importance", "uniform"]
Surplus = Literal["mixture", "natural", "importance"]
Toward = Literal["target", "all"]

SIGNALS: dict[Method, Signal] = {
    "natural": "nothing",
    "uniform": "nothing",
    "importance": "nothing",
    "importance-ratio": "nothing",
    "dga": "alignment",
    "dga-distributions": "alignment",
    "doge": "alignment",
    "odm": "losses",
    "schedule": "nothing",
}
"""What each rule learns from."""


class UnknownMixerError(BraidstreamError, ValueError):
    """A mixer name that is none, or a mixer that lacks what it needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixerSettings:
    """A mixer, what is blended into its weights, and its repetition budget."""

    method: Method
    """Which rule chooses the weights."""
    step_size: float = 5.0
    """η of DGA, over domains or over distributions."""
    update_every: int = 25
    """T_r, in steps between updates; also how often a blend that moves is renewed."""
    ema: float = 1.0
    """β of DGA-EMA, the share of the newest weights; 1 is no average."""
    score_scale: ScoreScale = "raw"
    """Scores as they are, or in units of their standard deviation over domains; η goes with it."""
    start: Start = "natural"
    """Where DGA's weights begin; over distributions `importance` is the target's own histogram, and
    anything else is all histograms alike."""
    start_share: float = 0.1
    """Share of natural proportions in a start from `importance`, so that no domain begins at 0."""
    bregman: float = 0.05
    """μ of DoGE: the smaller, the faster."""
    toward: Toward = "target"
    """Whose gradient DoGE aligns with: the target's, or the mean over all domains."""
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
    def signal(self) -> Signal:
        """What this mixer learns from."""
        return SIGNALS[self.method]

    @property
    def needs_target(self) -> bool:
        """Whether there is no such mixer without a target."""
        free = self.method in ("natural", "uniform", "odm", "schedule")
        free |= self.method == "doge" and self.toward == "all"
        return not free or self.blends_histogram

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
    "importance-ratio": MixerSettings(method="importance-ratio"),
    "importance-paced": MixerSettings(method="importance", max_passes=8, surplus="natural"),
    # The best of what was tried without tuning per target (docs/results.md).
    "importance-fading": MixerSettings(
        method="importance",
        max_passes=6,
        surplus="natural",
        repeat_decay=1.0,
        natural_share=0.3,
        natural_share_end=0.0,
    ),
    # The same rule with most of every batch natural throughout: for models that must keep general ability.
    "importance-general": MixerSettings(
        method="importance",
        max_passes=6,
        surplus="natural",
        repeat_decay=1.0,
        natural_share=0.85,
    ),
    "dga": MixerSettings(method="dga"),
    "dga-ema": MixerSettings(method="dga", ema=0.1),
    "dga-distributions": MixerSettings(method="dga-distributions"),
    "dga-paced": MixerSettings(method="dga", max_passes=8, surplus="mixture"),
    "dga-paced-general": MixerSettings(
        method="dga", step_size=1.5, natural_share=0.1, max_passes=8, surplus="natural"
    ),
    "doge": MixerSettings(method="doge", start="uniform"),
    "odm": MixerSettings(method="odm", update_every=1),
    "schedule": MixerSettings(method="schedule"),
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
    "bregman": float,
    "toward": ("target", "all"),
    "importance_share": float,
    "natural_share": float,
    "natural_share_end": float,
    "max_passes": float,
    "surplus": ("mixture", "natural", "importance"),
    "repeat_decay": float,
}
"""What a name can vary; also the settings that a run's configuration can change."""
