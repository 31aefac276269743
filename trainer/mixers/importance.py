"""Importance sampling: domains by how much of the target's text lies in them.

Each target document belongs to its nearest centroid. With h the histogram of the target over the domains
and n natural proportions, two mixtures that stay as they are:

    plain   w_i ∝ h_i            domains occur as often as in the target: each sample of the corpus with
                                 the weight h_i / n_i, the baseline of arXiv 2410.02498, section 3
    ratio   w_i ∝ h_i / n_i      domains by how much more of them the target has than the corpus; leans
                                 further towards small domains

Small domains that are near the target are repeated often, which is how these mixers overfit without a
repetition budget.
"""

from __future__ import annotations

import numpy as np

from pipeline import Mixture, MixtureError, View
from trainer.mixers.fixed import FixedMixer
from trainer.targets import Target


class ImportanceMixer(FixedMixer):
    """The target's histogram over the view; see `importance_mixture`."""

    def __init__(self, view: View, target: Target) -> None:
        super().__init__(importance_mixture(view, target))


class ImportanceRatioMixer(FixedMixer):
    """The target's histogram relative to natural proportions."""

    def __init__(self, view: View, target: Target) -> None:
        histogram = importance_mixture(view, target).probabilities
        ratio = histogram / np.maximum(view.sizes, 1)
        super().__init__(Mixture.from_weights(view, ratio))


def importance_mixture(view: View, target: Target) -> Mixture:
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
