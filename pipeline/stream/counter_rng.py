"""Random numbers by address: the same (seed, purpose, counters) gives the same bits, in any order.

A draw that is computed from where it stands, not from how many came before, is what lets the stream
resume without replay and lets every rank agree without talking. The generator is SplitMix64 (Steele,
Lea, Flood, OOPSLA 2014) with Stafford's variant 13 of the finaliser, folded over the counters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30, _SHIFT_27, _SHIFT_31 = np.uint64(30), np.uint64(27), np.uint64(31)
_SHIFT_11 = np.uint64(11)


def random_bits(seed: int, purpose: int, *counters: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for each combination of the (broadcast) integer counters.

    `purpose` separates independent uses of one seed. Returns uint64 of the broadcast shape.
    """
    bits = mixed(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    for counter in (purpose, *counters):
        bits = mixed(bits ^ (np.asarray(counter).astype(np.uint64) * _GOLDEN))
    return bits


def random_uniform(seed: int, purpose: int, *counters: ArrayLike) -> NDArray[np.float64]:
    """Uniform float64 in [0, 1) with 53 random bits for each combination of counters."""
    bits = random_bits(seed, purpose, *counters) >> _SHIFT_11
    return bits.astype(np.float64) * 2.0**-53


def mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Other bits for each of `bits`, as random as can be: one round of the generator."""
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> _SHIFT_30)) * _MULTIPLIER_1
    bits = (bits ^ (bits >> _SHIFT_27)) * _MULTIPLIER_2
    return bits ^ (bits >> _SHIFT_31)
