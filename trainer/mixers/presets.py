"""Mixers by name: the rows of the comparison, each with the repetition budget that belongs to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline import BraidstreamError
from trainer.mixers.mirror import ContinueFrom, ScoreScale
from trainer.mixers.protocol import Signal
from trainer.words import Kind, read_as, unknown_word

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
Replay = Literal["moving", "last"]
Histogram = Literal["counted", "smoothed"]

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
    """A mixer name that is none, a setting out of range, or a mixer that lacks what it needs."""


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
    continue_from: ContinueFrom = "weights"
    """With an average, where the next update starts: at the weights themselves, or at their average."""
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
    replay: Replay = "moving"
    """What a schedule takes of its file: weights as they moved, or the last ones from the start on."""
    histogram: Histogram = "counted"
    """The target's histogram over the domains: its examples as counted, or drawn towards natural proportions
    over the tree as far as they are few (`trainer.mixers.smoothing`)."""
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
    restraint: Literal["full", "capacity"] = "full"
    """Whether the bound on passes and a reserve that moves hold as they are set, or as far as the model could
    learn the target's domains by heart (`trainer.mixers.restraint`)."""

    def __post_init__(self) -> None:
        if unknown := unknown_word(self):
            name, known = unknown
            self._require(name, False, f"be one of {known}")
        for name in ("start_share", "importance_share", "natural_share", "natural_share_end"):
            share = getattr(self, name)
            self._require(
                name, share is None or 0 <= share <= 1, "lie between 0 and 1; it is a share"
            )
        for name in ("step_size", "repeat_decay"):
            self._require(name, getattr(self, name) >= 0, "be 0 or more")
        self._require("ema", 0 < self.ema <= 1, "be above 0 and at most 1; 1 is no average")
        self._require("bregman", self.bregman > 0, "be above 0; the smaller, the faster")
        self._require("update_every", self.update_every >= 1, "be at least 1 step")
        bound = self.max_passes
        self._require(
            "max_passes", bound is None or 0 < bound < math.inf, "be above 0; none is no bound"
        )

    @property
    def signal(self) -> Signal:
        """What this mixer learns from."""
        return SIGNALS[self.method]

    @property
    def needs_target(self) -> bool:
        """Whether there is no such mixer without a target."""
        free = self.method in ("natural", "uniform", "odm", "schedule")
        free |= self.method == "doge" and self.toward == "all" and self.start != "importance"
        return not free or self.blends_histogram or self.restraint == "capacity"

    @property
    def ignores_view(self) -> bool:
        """Whether every view gives the same run: natural proportions look through all of them."""
        return self.method == "natural" and self.max_passes is None and not self.needs_target

    @property
    def blends_histogram(self) -> bool:
        """Whether the target's importance-sampling histogram is part of what is sampled."""
        takes_surplus = self.max_passes is not None and self.surplus == "importance"
        return self.importance_share > 0 or takes_surplus

    @property
    def reads_histogram(self) -> bool:
        """Whether the target's importance-sampling histogram decides anything."""
        rules = ("importance", "importance-ratio", "dga-distributions")
        read = self.method in rules or self.start == "importance"
        return read or self.blends_histogram or self.restraint == "capacity"

    @property
    def blend_moves(self) -> bool:
        """Whether what is blended in changes during a run although the rule's weights stay."""
        bounded = self.max_passes is not None
        return self.reserve_moves or (
            bounded and (self.repeat_decay > 0 or self.surplus == "importance")
        )

    @property
    def reserve_moves(self) -> bool:
        """Whether natural proportions have another share at the end of the run than at its start."""
        return self.natural_share_end not in (None, self.natural_share)

    @property
    def uses(self) -> tuple[str, ...]:
        """Which settings of `VARIED` make a difference to this mixer."""
        used = ["importance_share", "natural_share", "natural_share_end", "max_passes"]
        if self.max_passes is not None:
            used += ["surplus", "repeat_decay"]
        if self.max_passes is not None or self.reserve_moves:
            used.append("restraint")
        if self.signal != "nothing" or self.blend_moves:
            used.append("update_every")
        if self.method in ("dga", "dga-distributions"):
            used += ["step_size", "ema", "score_scale", "start"]
            if self.ema < 1:
                used.append("continue_from")
        if self.method == "doge":
            used += ["bregman", "toward", "start"]
        if self.method == "schedule":
            used.append("replay")
        if self.reads_histogram:
            used.append("histogram")
        if "start" in used and self.start == "importance":
            used.append("start_share")
        return tuple(used)

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise UnknownMixerError(
                f"{name}={getattr(self, name)!r} of the mixer {self.method!r} must {rule}."
            )


PRESETS: dict[str, MixerSettings] = {
    "natural": MixerSettings(method="natural"),
    "uniform": MixerSettings(method="uniform"),
    "importance": MixerSettings(method="importance"),
    "importance-ratio": MixerSettings(method="importance-ratio"),
    "importance-paced": MixerSettings(method="importance", max_passes=8, surplus="natural"),
    # The best of what was tried without tuning per target (docs/results.md).
    "importance-fading": MixerSettings(
        method="importance",
        histogram="smoothed",
        max_passes=6,
        surplus="natural",
        repeat_decay=1.0,
        natural_share=0.3,
        natural_share_end=0.0,
        restraint="capacity",
    ),
    # The same rule with 95% of what is drawn natural: for models that must keep general ability. Its reserve
    # is there for that, however much the model can hold.
    "importance-general": MixerSettings(
        method="importance",
        histogram="smoothed",
        max_passes=6,
        surplus="natural",
        repeat_decay=1.0,
        natural_share=0.93,
        natural_share_end=0.97,
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

    A preset may be varied in its name: `dga-paced+step_size=2+start=importance`. A change that makes no
    difference to the mixer is an error too. For changes of how alignment is measured see
    `measuring_changes`.
    """
    preset, *changes = name.split("+")
    if preset not in PRESETS:
        raise UnknownMixerError(
            f"there is no mixer {preset!r}; choose one of {', '.join(PRESETS)}."
        )
    parsed = dict(_parse_change(name, change) for change in changes)
    own = {field: value for field, value in parsed.items() if field in VARIED}
    settings = replace(PRESETS[preset], **own)
    for field in parsed:
        if field in MEASURED and settings.signal != "alignment":
            raise UnknownMixerError(
                f"{field} changes nothing in the mixer {name!r}, which measures no alignment; leave it out."
            )
    if unused := [field for field in own if field not in settings.uses]:
        raise UnknownMixerError(no_difference(unused[0], name))
    return settings


def measuring_changes(name: str) -> dict[str, Any]:
    """What a mixer's name says of how alignment is measured: `dga+shrinkage=tree+half_life=200`."""
    changes = dict(_parse_change(name, change) for change in name.split("+")[1:])
    return {field: value for field, value in changes.items() if field in MEASURED}


def no_difference(field: str, mixer: str) -> str:
    """That a setting is without effect in a mixer, and whose it is."""
    return f"{field} changes nothing in the mixer {mixer!r}: {_BELONGS[field]}. Leave it out."


def _parse_change(name: str, change: str) -> tuple[str, Any]:
    """`field=value` with the value as the field's type has it."""
    field, equals, text = change.partition("=")
    kind = (VARIED | MEASURED).get(field)
    if kind is None or not equals:
        raise UnknownMixerError(
            f"{change!r} in the mixer {name!r} is no setting=value; the settings are "
            f"{', '.join([*VARIED, *MEASURED])}."
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


VARIED = {name: kind for name, kind in read_as(MixerSettings).items() if name != "method"}
"""Settings of a mixer that its name can vary; a run's configuration can change them, too."""

MEASURED: dict[str, Kind] = {
    "estimator": ("difference", "exact", "probe"),
    "shrinkage": ("none", "tree"),
    "half_life": float,
    "probe_every": int,
    "measured_domains": int,
    "measured_tokens": int,
    "gradients": ("raw", "clip", "cosine"),
    "epsilon": float,
    "sequences_per_domain": int,
    "sequences_per_distribution": int,
    "target_batch": int,
}
"""Settings of a run that a mixer's name can vary as well, so that one comparison holds several."""

READ_BY: dict[str, Method] = {"basis": "dga-distributions", "weights_file": "schedule"}
"""Settings of a run that one method alone reads; no mixer's name carries them."""

_BELONGS = {
    **{name: f"it belongs to {method}" for name, method in READ_BY.items()},
    **dict.fromkeys(("step_size", "ema", "score_scale"), "it belongs to dga and dga-distributions"),
    "start": "it belongs to dga, dga-distributions and doge",
    "start_share": "it takes start=importance",
    "replay": "it belongs to schedule",
    "continue_from": "it takes an average, ema below 1, in dga or dga-distributions",
    **dict.fromkeys(("bregman", "toward"), "it belongs to doge"),
    **dict.fromkeys(("surplus", "repeat_decay"), "it takes a bound on repetition, max_passes"),
    "restraint": "it takes a bound on repetition, max_passes, or a reserve that moves, natural_share_end",
    "histogram": "it looks at no histogram of the target",
    "update_every": "it learns nothing, and what is blended into it does not move",
}
