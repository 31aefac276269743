"""Where a target's text lies, guessed from few examples: counts drawn towards the corpus over the tree.

A few examples of a varied task lie in a few of many domains, and a mixture that takes their counts for the
whole task never sees the others. Down the nested views of the corpus, with n_v the examples in node v, q_v
the natural share of v in its parent u, and a strength s for each level:

    p(v | u) = (n_v + s q_v) / (n_u + s)

the posterior mean of a Dirichlet-multinomial, whose likelihood of the counts chooses s. So a level on which
the examples follow the corpus is not told apart further, one on which they stand out is followed, and
with many examples nothing is left of the corpus. Tried in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline import Corpus, TargetSet, View
from trainer.alignment.leaf_alignment import nested_views
from trainer.targets import Target, TargetMix

Floats = NDArray[np.float64]

_STRENGTHS = np.exp(np.linspace(-6, 8, 113))
"""The values of s that are looked at, in examples: from nothing to thousands, an eighth apart."""


def smoothed_target(corpus: Corpus, target: Target) -> Target:
    """`target` with a histogram that allows for how few examples it was counted from.

    Each of several sets is smoothed by itself.
    """
    views = nested_views(corpus)

    def smoothed(part: TargetSet) -> TargetSet:
        counts = part.leaf_histogram * (part.train_documents / part.leaf_histogram.sum())
        return replace(part, leaf_histogram=smoothed_histogram(views, counts))

    if isinstance(target, TargetMix):
        return replace(target, sets=tuple(smoothed(part) for part in target.sets))
    return smoothed(target)


def smoothed_histogram(views: Sequence[View], counts: Floats) -> Floats:
    """Shares of the leaves, (num_leaves,), that sum to 1, for `counts` (num_leaves,) of examples in them.

    `views` are nested, from the whole corpus to its leaves. A leaf without samples gets nothing.
    """
    shares = np.ones(1)
    for coarse, fine in pairwise(views):
        parents = fine.parents_in(coarse)
        natural = fine.sizes / np.maximum(coarse.sizes, 1)[parents]
        own = fine.sum_leaves(counts) * (fine.sizes > 0)
        above = np.bincount(parents, own, coarse.k).astype(np.float64)
        strength = _likeliest_strength(own, above, natural)
        shares = shares[parents] * (own + strength * natural) / (above[parents] + strength)
    return shares


def _likeliest_strength(counts: Floats, totals: Floats, natural: Floats) -> float:
    """s of the Dirichlet-multinomial under which `counts` of nodes with `totals` of parents are likeliest."""
    seen, totals = counts > 0, totals[totals > 0]
    prior = _STRENGTHS[:, None] * natural[seen]
    children = _log_gamma(counts[seen] + prior) - _log_gamma(prior)
    parents = _log_gamma(totals + _STRENGTHS[:, None]) - _log_gamma(_STRENGTHS[:, None])
    return float(_STRENGTHS[np.argmax(children.sum(axis=1) - parents.sum(axis=1))])


def _log_gamma(values: Floats) -> Floats:
    import torch  # slow to import, and mixers are known by name without it

    return torch.lgamma(torch.from_numpy(values)).numpy()
