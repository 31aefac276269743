"""How far a model has to be kept from repeating the target's domains.

A bound on passes and general text first pay where a model can learn the target's domains by heart, and cost
where it cannot. A transformer stores some 3.6 bits a parameter (arXiv 2505.24832), and a token of text is
about as many, so a model with P trained parameters holds P tokens. With the target's histogram h over domains
of n_i samples,

    U = 1 / Σ_i h_i² / n_i          samples that importance sampling spreads its draws over
    r = U / capacity                capacity = P / tokens of a sample
    φ = min(1, (1 - r) / 0.85), at least 0

and a bound of E passes becomes E / φ, a reserve that runs from s to s_end starts at s_end + φ (s - s_end).
Up to r = 0.15 nothing changes; from 1 on it is plain importance sampling.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline import Mixture
from trainer.mixers.presets import MixerSettings

_FULL_UP_TO = 0.15
"""Two more passes cost most where r was .13 and .16, nothing where it was .3 (docs/results.md)."""


def restraint(histogram: Mixture, capacity: float) -> float:
    """φ, from 0 to 1, of a model that can hold `capacity` samples."""
    weights, sizes = histogram.probabilities, histogram.view.sizes
    wanted = weights > 0
    samples = 1 / float(np.sum(weights[wanted] ** 2 / sizes[wanted]))
    return min(1.0, max(0.0, 1 - samples / capacity) / (1 - _FULL_UP_TO))


def restrained(settings: MixerSettings, share: float) -> MixerSettings:
    """`settings` with bound and moving reserve relaxed to φ = `share`."""
    if settings.natural_share_end is not None:
        end = settings.natural_share_end
        settings = replace(settings, natural_share=end + share * (settings.natural_share - end))
    if settings.max_passes is None:
        return settings
    if share == 0:
        return replace(settings, max_passes=None, repeat_decay=0.0)
    return replace(settings, max_passes=settings.max_passes / share)
