"""How far a model has to be kept from repeating the target's domains.

A bound on passes and general text first pay where a model can learn the target's domains by heart, and cost
where it cannot. A transformer stores some 3.6 bits a parameter (arXiv 2505.24832), and a token of text is
about as many, so a model with P trained parameters holds P tokens. With the target's histogram h over domains
of n_i samples, T samples drawn in the whole run and a bound of E passes,

    capacity = P / tokens of a sample
    U = 1 / Σ_i h_i² / n_i                    samples that importance sampling spreads its draws over
    R = T / U                                 how often it would draw each of them
    W = Σ n_i where T h_i / n_i > E           samples of the domains that the bound is there for

    φ = (1 - U / capacity) / 0.85             within 0 and 1
    ψ = (W / capacity - 0.15) / 0.15          within 0 and 1

    reserve   from s_end + φ (s - s_end) to s_end, where s to s_end was set
    passes    E · max(1 + 2 ψ, R / 18 but at most 4/3); no bound at φ = 0

So E passes are allowed where W is a small part of what the model can hold, three times E where it is 0.3
and more of it, beside all else that there is to learn, and a third more than E at least where R is 24 and
more, since so much general text stands between two passes. From U = capacity on it is plain importance
sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipeline import Mixture
from trainer.mixers.presets import MixerSettings

_FULL_UP_TO = 0.15
"""U and W over capacity up to which nothing gives way: with a ratio of .13 two more passes cost 0.09 nats."""
_MOST_PASSES_FROM = 0.3
_MOST_PASSES = 3.0
"""18 passes instead of 8 gained 0.17 nats where W was .30 and .37 of the capacity (docs/results.md)."""
_REPEATED = 18
_MORE_WHERE_REPEATED = 4 / 3
"""Eight passes instead of six gained 0.03 at R = 25, 0.01 at 33, and cost 0.01 and 0.05 at 16 and 14."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restraint:
    """What becomes of a mixer's bound and reserve."""

    share: float
    """φ: 1 leaves a reserve as it was set, 0 takes it away."""
    passes: float
    """What a bound on passes is multiplied by; infinity is no bound."""


def restraint(
    histogram: Mixture, *, capacity: float, drawn: int, max_passes: float | None
) -> Restraint:
    """For a model that can hold `capacity` samples, in a run that draws `drawn`; arguments as set."""
    weights, sizes = histogram.probabilities, histogram.view.sizes
    wanted = weights > 0
    weights, sizes = weights[wanted], sizes[wanted]
    samples = 1 / float(np.sum(weights**2 / sizes))
    share = float(np.clip((1 - samples / capacity) / (1 - _FULL_UP_TO), 0, 1))
    if max_passes is None or share == 0:
        return Restraint(share=share, passes=math.inf)
    worn = float(sizes[drawn * weights > max_passes * sizes].sum())
    of_model = np.interp(worn / capacity, [_FULL_UP_TO, _MOST_PASSES_FROM], [1, _MOST_PASSES])
    of_run = np.clip(drawn / samples / _REPEATED, 1, _MORE_WHERE_REPEATED)
    return Restraint(share=share, passes=float(max(of_model, of_run)))


def restrained(settings: MixerSettings, by: Restraint) -> MixerSettings:
    """`settings` with bound and moving reserve as `by` says."""
    if settings.natural_share_end is not None:
        end = settings.natural_share_end
        settings = replace(settings, natural_share=end + by.share * (settings.natural_share - end))
    if settings.max_passes is None:
        return settings
    bound = settings.max_passes * by.passes
    return replace(settings, max_passes=None if math.isinf(bound) else bound)
