"""The grid of a comparison: which training runs it takes, each of them once.

A mixer that does not look at something need not be run again for it: natural proportions depend
on the seed alone, uniform ones on the view too. Such a run evaluates every target of the corpus, so
that it also serves a target that is added to the comparison later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pipeline import BraidstreamError, Corpus
from trainer.mixers import PRESETS, UnknownMixerError, mixer_settings
from trainer.targets import target_weights


class GridError(BraidstreamError, ValueError):
    """A mixer, target, granularity or seed that does not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One training run of the grid."""

    mixer: str
    k: int | None
    """Number of domains; None where the mixer ignores the view."""
    target: str | None
    """Steering target; None where the mixer ignores it and the run evaluates all targets."""
    seed: int

    @property
    def name(self) -> str:
        """Name of the run folder: the same cell has the same name in every comparison."""
        parts = [self.mixer]
        if self.k is not None:
            parts.append(f"k{self.k}")
        if self.target is not None:
            parts.append(self.target)
        return "-".join([*parts, f"seed{self.seed}"])


def ignores_target(mixer: str) -> bool:
    """Whether runs of `mixer` are the same for every target."""
    return _is_known(mixer) and not mixer_settings(mixer).needs_target


def ignores_view(mixer: str) -> bool:
    """Whether runs of `mixer` are the same for every k: natural proportions look through any view."""
    return _is_known(mixer) and mixer_settings(mixer).ignores_view


def _is_known(mixer: str) -> bool:
    """Whether this version has the mixer; runs of others can still be shown."""
    try:
        mixer_settings(mixer)
    except UnknownMixerError:
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What is compared; every list is without repetition."""

    mixers: tuple[str, ...]
    ks: tuple[int, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]

    def cells(self) -> tuple[Cell, ...]:
        """The runs of the grid, each once, seed by seed: the first seed is a whole comparison."""
        cells = (
            Cell(
                mixer=mixer,
                k=None if ignores_view(mixer) else k,
                target=None if ignores_target(mixer) else target,
                seed=seed,
            )
            for seed, target, k, mixer in product(self.seeds, self.targets, self.ks, self.mixers)
        )
        return tuple(dict.fromkeys(cells))


def parse_grid(corpus: Corpus, *, mixers: str, ks: str, targets: str, seeds: str) -> Grid:
    """Turn comma-separated lists into a grid over `corpus`.

    No k means the tree's first level, no target all of the corpus. Raises `GridError` for whatever
    the corpus or the trainer does not have, before anything runs.
    """
    known = corpus.target_names
    if not known:
        raise GridError(
            "this corpus has no target set, and a comparison is about the loss on one. Build it with "
            "`braidstream build ... --target NAME=TRAIN,TEST`."
        )
    first_level = corpus.levels[min(1, len(corpus.levels) - 1)]
    levels = ", ".join(f"{level:,}" for level in corpus.levels)
    return Grid(
        mixers=_mixers(mixers),
        ks=_numbers(
            "--k",
            ks or str(first_level),
            at_least=1,
            at_most=corpus.num_leaves,
            advice=f"the levels of this corpus are {levels}, and every number in between works too",
        ),
        targets=_targets(targets, known) if targets else known,
        seeds=_numbers("--seeds", seeds, at_least=0, at_most=2**32 - 1, advice="such as 0,1"),
    )


def _split(option: str, text: str) -> tuple[str, ...]:
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise GridError(f"{option} {text!r} lists nothing; give at least one, separated by commas.")
    return parts


def _mixers(text: str) -> tuple[str, ...]:
    names = _split("--mixers", text)
    _names("--mixers", ",".join(name.partition("+")[0] for name in names), tuple(PRESETS))
    for name in names:
        mixer_settings(name)  # says what is wrong with a name's changes
    return names


def _targets(text: str, known: Sequence[str]) -> tuple[str, ...]:
    targets = _split("--targets", text)
    for target in targets:
        for name in target_weights(target, known):
            _names("--targets", name, known)
    return targets


def _names(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = _split(option, text)
    if unknown := [name for name in names if name not in known]:
        raise GridError(
            f"{option}: there is no {', '.join(unknown)}; choose from {', '.join(known)}."
        )
    return names


def _numbers(
    option: str, text: str, *, at_least: int, at_most: int, advice: str
) -> tuple[int, ...]:
    parts = _split(option, text)
    wrong = [p for p in parts if not p.isdecimal() or not at_least <= int(p) <= at_most]
    if wrong:
        raise GridError(
            f"{option}: {', '.join(wrong)} is no whole number from {at_least:,} to {at_most:,}; "
            f"{advice}."
        )
    return tuple(dict.fromkeys(int(part) for part in parts))
