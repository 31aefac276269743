"""Importance sampling: domains by how much of the target's text lies in them.

Each target document belongs to its nearest centroid; the histogram over the domains is the mixture, and
it stays (the baseline of arXiv 2410.02498, section 3). Small domains that are near the target are repeated
often, which is how this mixer overfits without a repetition budget.
"""

from __future__ import annotations

from pipeline import Mixture, MixtureError, TargetSet, View
from trainer.mixers.fixed import FixedMixer


class ImportanceMixer(FixedMixer):
    """The target's histogram over the view; see `importance_mixture`."""

    def __init__(self, view: View, target: TargetSet) -> None:
        super().__init__(importance_mixture(view, target))


def importance_mixture(view: View, target: TargetSet) -> Mixture:
    """The target's histogram over `view` as a mixture.

    What the histogram gives to domains without samples goes to the others in proportion. Raises
    `MixtureError` when no target text lies in a domain that has samples.
    """
    histogram = view.sum_leaves(target.leaf_histogram) * (view.sizes > 0)
    if not histogram.sum() > 0:
        raise MixtureError(
            f"none of the text of target {target.name!r} lies in a domain that has samples at "
            f"k={view.k}; take a coarser view (a smaller k)."
        )
    return Mixture.from_weights(view, histogram)
