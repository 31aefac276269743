"""What a run is steered towards: one target set of the corpus, or several with weights.

    recipes                       one
    recipes+medical_qa            two that count alike
    recipes=0.7+medical_qa=0.3    two, weighted; weights are brought to sum to 1

With weights w_j the target's loss is Σ_j w_j L_j, so its gradient is Σ_j w_j ∇L_j, and its histogram over
the domains is Σ_j w_j h_j: a large set counts for no more than its weight.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import BraidstreamError, Corpus, TargetSet


class TargetError(BraidstreamError, ValueError):
    """Text that names no target sets with weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetMix:
    """Several target sets with weights."""

    name: str
    """How the user wrote it."""
    sets: tuple[TargetSet, ...]
    weights: tuple[float, ...]
    """One per set; positive, they sum to 1."""

    @property
    def leaf_histogram(self) -> NDArray[np.float64]:
        """Σ_j w_j h_j, shape (num_leaves,); sums to 1."""
        histograms = np.stack(
            [part.leaf_histogram / part.leaf_histogram.sum() for part in self.sets]
        )
        mixed: NDArray[np.float64] = np.array(self.weights) @ histograms
        return mixed


Target = TargetSet | TargetMix


def steering_target(corpus: Corpus, text: str) -> Target:
    """The sets that `text` names; raises `TargetError`, and `CorpusError` for a set that is not there."""
    weights = target_weights(text, corpus.target_names)
    sets = tuple(corpus.target(name) for name in weights)
    if len(sets) == 1:
        return sets[0]
    return TargetMix(name=text, sets=sets, weights=tuple(weights.values()))


def check_steers(target: Target) -> None:
    """Raise `TargetError` for a set without train sequences, of which gradients and histograms are."""
    for part in target.sets if isinstance(target, TargetMix) else (target,):
        if not len(part.train):
            raise TargetError(
                f"the target set {part.name!r} has 0 train sequences, and steering looks at no others. Name "
                "another set, or build the corpus again with train text for this one."
            )


def target_weights(text: str, known: Collection[str]) -> dict[str, float]:
    """Weights by the names that `text` holds, summing to 1; a name in `known` is taken as it stands."""
    if text in known:
        return {text: 1.0}
    if "," in text:
        raise TargetError(
            f"the target {text!r} has a comma; several sets that steer one run are joined by +, such as "
            f"{'+'.join(filter(None, text.split(',')))}."
        )
    weights: dict[str, float] = {}
    for part in text.split("+"):
        name, equals, number = part.partition("=")
        weight = _positive(number) if equals else 1.0
        if not name or weight is None or name in weights:
            wrong = "stands there twice" if name in weights else "is no NAME or NAME=WEIGHT"
            raise TargetError(
                f"the target {text!r}: {part!r} {wrong}. Write one name, or several with positive weights, "
                "such as recipes=0.7+medical_qa=0.3."
            )
        weights[name] = weight
    if 0 < text.count("=") < len(weights):
        raise TargetError(
            f"the target {text!r} gives some of its sets a weight and others none; give it to all, or to "
            "none."
        )
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def mixed_loss(losses: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Σ_j w_j L_j; None where one of them was not measured."""
    parts = [(weight, losses[name]) for name, weight in weights.items()]
    if any(loss is None for _, loss in parts):
        return None
    return sum(weight * loss for weight, loss in parts if loss is not None)


def _positive(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number > 0 and math.isfinite(number) else None
