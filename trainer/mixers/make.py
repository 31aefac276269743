"""A mixer from its settings, with what stands between it and the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline import BudgetError, Corpus, Mixture, RepetitionBudget, View
from trainer.mixers.blend import Blend
from trainer.mixers.dga import DGAMixer
from trainer.mixers.distributions import DistributionMixer
from trainer.mixers.doge import DoGEMixer
from trainer.mixers.importance import ImportanceMixer, ImportanceRatioMixer, importance_mixture
from trainer.mixers.natural import NaturalMixer
from trainer.mixers.odm import ODMMixer
from trainer.mixers.presets import Histogram, MixerSettings, UnknownMixerError, mixer_settings
from trainer.mixers.protocol import Mixer
from trainer.mixers.restraint import Restraint, restrained, restraint
from trainer.mixers.schedule import read_schedule
from trainer.mixers.smoothing import smoothed_target
from trainer.mixers.uniform import UniformMixer
from trainer.targets import Target, check_steers, steering_target


class MadeMixer(NamedTuple):
    """A mixer, the blend that follows it, and the budget for the stream."""

    mixer: Mixer
    blend: Blend
    budget: RepetitionBudget | None
    restraint: Restraint | None
    """What became of bound and moving reserve; None where that was not asked for."""


def make_mixer(
    mixer: str | MixerSettings,
    corpus: Corpus,
    view: View,
    *,
    num_steps: int,
    batch_size: int,
    target: Target | None = None,
    basis: Mapping[str, Mixture] | None = None,
    learning_rate: Callable[[int], float] | None = None,
    weights_file: Path | None = None,
    capacity: float | None = None,
) -> MadeMixer:
    """Build a mixer over `view` of `corpus`, its blend and its budget for a run of `num_steps` batches.

    `basis` is what `dga-distributions` weighs (see `basis_mixtures`), `learning_rate` the function of
    the step that `doge` follows, `weights_file` what `schedule` reads, `capacity` the samples that the model
    can learn by heart, which `restraint="capacity"` looks at. Raises `UnknownMixerError` for an unknown
    name or for one of these that is missing, `TargetError` for a target that cannot steer, `BudgetError` for
    a bound on passes that is too small for the run.
    """
    settings = mixer_settings(mixer) if isinstance(mixer, str) else mixer
    if settings.needs_target and target is None:
        raise UnknownMixerError(
            f"the mixer {settings.method!r} steers towards a target and none was given; name one "
            "with --target NAME, or take the mixer natural or uniform."
        )
    if settings.needs_target and target is not None:
        check_steers(target)
    if target is not None:
        target = _as_seen(corpus, target, settings.histogram)
    held = _restraint(settings, view, target, capacity, drawn=num_steps * batch_size)
    budget = as_set = _budget(settings, num_steps)
    if held is not None:
        settings = restrained(settings, held)
        budget = _budget(settings, num_steps)
    if budget is not None and as_set is not None:
        try:
            budget.check(view.sizes, batch_size)
        except BudgetError:
            as_set.check(view.sizes, batch_size)  # allows no more, in the user's own numbers
    blend = Blend(
        num_steps=num_steps,
        batch_size=batch_size,
        natural_share=settings.natural_share,
        natural_share_end=settings.natural_share_end,
        importance_share=settings.importance_share,
        histogram=importance_mixture(view, target)
        if target and settings.blends_histogram
        else None,
        repeat_decay=0.0 if budget is None else settings.repeat_decay,
        budget=budget,
        surplus_to_histogram=budget is not None and settings.surplus == "importance",
    )
    rule = _rule(settings, view, target, basis, learning_rate, weights_file)
    return MadeMixer(rule, blend, budget, held)


def basis_mixtures(
    corpus: Corpus,
    view: View,
    target: str,
    names: tuple[str, ...] = (),
    *,
    histogram: Histogram = "counted",
) -> dict[str, Mixture]:
    """The histograms over `view` that `dga-distributions` weighs, by name; `target`'s comes first.

    `names` are target sets of the corpus or `natural`; none means all target sets and `natural`.
    """
    wanted = dict.fromkeys([target, *(names or (*corpus.target_names, "natural"))])
    return {name: _of_basis(corpus, view, name, histogram) for name in wanted}


def _of_basis(corpus: Corpus, view: View, name: str, histogram: Histogram) -> Mixture:
    if name == "natural":
        return Mixture.natural(view)
    target = steering_target(corpus, name)
    check_steers(target)
    return importance_mixture(view, _as_seen(corpus, target, histogram))


def _as_seen(corpus: Corpus, target: Target, histogram: Histogram) -> Target:
    return smoothed_target(corpus, target) if histogram == "smoothed" else target


def _restraint(
    settings: MixerSettings,
    view: View,
    target: Target | None,
    capacity: float | None,
    *,
    drawn: int,
) -> Restraint | None:
    if settings.restraint == "full":
        return None
    if capacity is None:
        raise UnknownMixerError(
            "restraint='capacity' compares the target's domains with the model; pass capacity=…, the samples "
            "that it can learn by heart, or take restraint='full'."
        )
    assert target is not None, "needs_target was looked at"
    return restraint(
        importance_mixture(view, target),
        capacity=capacity,
        drawn=drawn,
        max_passes=settings.max_passes,
    )


def _budget(settings: MixerSettings, num_steps: int) -> RepetitionBudget | None:
    if settings.max_passes is None:
        return None
    # The surplus to the histogram is the blend's; what even that cannot take is spread naturally.
    surplus = "natural" if settings.surplus == "importance" else settings.surplus
    return RepetitionBudget(max_passes=settings.max_passes, num_steps=num_steps, surplus=surplus)


def _rule(
    settings: MixerSettings,
    view: View,
    target: Target | None,
    basis: Mapping[str, Mixture] | None,
    learning_rate: Callable[[int], float] | None,
    weights_file: Path | None,
) -> Mixer:
    """The mixer itself."""
    match settings.method:
        case "natural":
            return NaturalMixer(view)
        case "uniform":
            return UniformMixer(view)
        case "importance":
            assert target is not None
            return ImportanceMixer(view, target)
        case "importance-ratio":
            assert target is not None
            return ImportanceRatioMixer(view, target)
        case "dga":
            return DGAMixer(
                _start(settings, view, target),
                step_size=settings.step_size,
                update_every=settings.update_every,
                ema=settings.ema,
                score_scale=settings.score_scale,
                continue_from=settings.continue_from,
            )
        case "dga-distributions":
            if basis is None:
                raise UnknownMixerError(
                    "the mixer 'dga-distributions' weighs histograms; pass basis=basis_mixtures(…)."
                )
            return _distributions(settings, basis)
        case "doge":
            if learning_rate is None:
                raise UnknownMixerError(
                    "the mixer 'doge' follows the learning rate; pass learning_rate=…, "
                    "a function of the step."
                )
            return DoGEMixer(
                _start(settings, view, target),
                learning_rate=learning_rate,
                bregman=settings.bregman,
                update_every=settings.update_every,
            )
        case "odm":
            return ODMMixer(view, update_every=settings.update_every)
        case "schedule":
            if weights_file is None:
                raise UnknownMixerError(
                    "the mixer 'schedule' reads its weights from a file; name one with --weights-file, "
                    "for instance the metrics.jsonl of another run."
                )
            schedule = read_schedule(weights_file, view)
            return schedule.frozen() if settings.replay == "last" else schedule


def _distributions(settings: MixerSettings, basis: Mapping[str, Mixture]) -> DistributionMixer:
    """Weights begin alike, or mostly at the target's own histogram, which is the first."""
    start = np.full(len(basis), 1 / len(basis))
    if settings.start == "importance":
        start *= settings.start_share
        start[0] += 1 - settings.start_share
    return DistributionMixer(
        basis,
        start,
        step_size=settings.step_size,
        update_every=settings.update_every,
        ema=settings.ema,
        score_scale=settings.score_scale,
        continue_from=settings.continue_from,
    )


def _start(settings: MixerSettings, view: View, target: Target | None) -> Mixture:
    if settings.start == "uniform":
        return Mixture.uniform(view)
    natural = Mixture.natural(view)
    if settings.start == "natural":
        return natural
    assert target is not None, "needs_target was looked at"
    return importance_mixture(view, target).blend(natural, settings.start_share)
