"""A mixture: probabilities over the domains of one view. A value; updating returns a new one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.corpus.view import View
from pipeline.errors import MixtureError

_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Probabilities over the k domains of `view`: float64, shape (k,), read-only.

    Raises `MixtureError` unless they are finite, non-negative, sum to 1 within 1e-9, have the view's
    length, and give nothing to a domain without samples. `from_weights` normalises for you.
    """

    view: View
    probabilities: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = np.array(self.probabilities, dtype=np.float64)
        _check_weights(self.view, values)
        total = float(values.sum())
        if abs(total - 1.0) > _SUM_TOLERANCE:
            raise MixtureError(
                f"the probabilities sum to {total!r}; they must sum to 1. "
                "Use Mixture.from_weights(view, weights) to normalise."
            )
        values.setflags(write=False)
        object.__setattr__(self, "probabilities", values)

    @classmethod
    def natural(cls, view: View) -> Mixture:
        """Each domain by its size: what sampling the corpus uniformly would give."""
        return cls.from_weights(view, view.sizes)

    @classmethod
    def uniform(cls, view: View) -> Mixture:
        """The same probability for every domain that has samples."""
        return cls.from_weights(view, view.sizes > 0)

    @classmethod
    def from_weights(cls, view: View, weights: ArrayLike) -> Mixture:
        """Normalise non-negative finite weights of shape (k,); refuses weight on an empty domain."""
        values = np.asarray(weights, dtype=np.float64)
        _check_weights(view, values)
        peak = values.max()
        if peak <= 0:
            raise MixtureError("all weights are zero; give at least one domain a positive weight.")
        values = values / peak  # weights near the largest float would overflow in the sum
        return cls(view, values / values.sum())

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        positive = self.probabilities[self.probabilities > 0]
        return float(-(positive * np.log(positive)).sum())

    @property
    def effective_domains(self) -> float:
        """exp(entropy): how many equally likely domains would be as diverse."""
        return float(np.exp(self.entropy))

    def distance(self, other: Mixture) -> float:
        """Total variation distance in [0, 1] to a mixture over the same view."""
        self._same_view(other)
        return float(0.5 * np.abs(self.probabilities - other.probabilities).sum())

    def blend(self, other: Mixture, share: float) -> Mixture:
        """(1 - share) of this mixture and `share` of `other`, which is over the same view."""
        self._same_view(other)
        if not 0.0 <= share <= 1.0:
            raise MixtureError(f"share={share!r} must lie between 0 and 1.")
        blended = (1.0 - share) * self.probabilities + share * other.probabilities
        return Mixture.from_weights(self.view, blended)

    def to(self, view: View) -> Mixture:
        """Carry the mixture to a coarser view (sums) or a finer one (each domain split by size).

        All views of one corpus are nested. Going finer and back returns the same mixture. A view of
        another corpus raises `MixtureError`.
        """
        if view.corpus_fingerprint != self.view.corpus_fingerprint:
            raise MixtureError(
                f"the mixture belongs to corpus {self.view.corpus_fingerprint[:12]}, the view to corpus "
                f"{view.corpus_fingerprint[:12]}; a mixture can only move between views of one corpus."
            )
        if view.k <= self.view.k:
            parent = self.view.parents_in(view)
            return Mixture.from_weights(view, np.bincount(parent, self.probabilities, view.k))
        parent = view.parents_in(self.view)
        parent_size = np.maximum(self.view.sizes, 1)[parent]
        return Mixture.from_weights(view, self.probabilities[parent] * (view.sizes / parent_size))

    def _same_view(self, other: Mixture) -> None:
        if self.view != other.view:
            raise MixtureError(
                f"the mixtures are over different views, {self.view} and {other.view}; carry one over "
                "with mixture.to(view)."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mixture):
            return NotImplemented
        return self.view == other.view and np.array_equal(self.probabilities, other.probabilities)

    def __hash__(self) -> int:
        return hash((self.view, self.probabilities.tobytes()))

    def __repr__(self) -> str:
        return f"Mixture(k={self.view.k}, effective_domains={self.effective_domains:.1f})"


def check_mixture(value: object) -> None:
    """Raise `TypeError` for what is no mixture: a name, bare numbers, nothing."""
    if not isinstance(value, Mixture):
        raise TypeError(
            f"{value!r} is no Mixture. Make one over a view, such as corpus.domains(k=16): "
            "Mixture.natural(view), Mixture.uniform(view) or Mixture.from_weights(view, weights)."
        )


def _check_weights(view: View, values: NDArray[np.float64]) -> None:
    if values.shape != (view.k,):
        raise MixtureError(
            f"the weights have shape {values.shape}; the view has {view.k} domains, so the shape must "
            f"be ({view.k},)."
        )
    if not np.isfinite(values).all():
        where = int(np.flatnonzero(~np.isfinite(values))[0])
        raise MixtureError(
            f"the weight of domain {where} is {float(values[where])}; weights must be finite."
        )
    if (values < 0).any():
        where = int(np.argmin(values))
        raise MixtureError(
            f"the weight of domain {where} is {float(values[where])}; weights must not be negative."
        )
    if (values[view.sizes == 0] > 0).any():
        where = int(np.flatnonzero((view.sizes == 0) & (values > 0))[0])
        raise MixtureError(
            f"domain {where} has the weight {float(values[where])} and no samples; give empty domains 0, for "
            "instance with `weights * (view.sizes > 0)`."
        )
