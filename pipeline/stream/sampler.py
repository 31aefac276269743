"""Which samples a batch holds, as pure functions of (seed, step, samples used, mixture).

Domains are drawn by systematic sampling (Madow, 1944): one uniform number u shifts a comb of B equally
spaced points (u + j) / B, and each point picks the domain whose interval of the cumulated mixture it
falls into. Every domain is drawn with exactly its probability, and its count in a batch of B differs
from B·p_i by less than one, which is as even as a batch can be. Then the batch is put in random order,
so that any slice of it is a fair sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.stream.counter_rng import random_bits, random_uniform

Ints = NDArray[np.int64]

# Purposes that separate the uses of one seed (order.py has more). Changing one changes every stream.
_COMB, _ORDER = 1, 2


def draw_domains(seed: int, steps: Ints, cumulative: NDArray[np.float64], batch_size: int) -> Ints:
    """Domains of the batches at `steps` (s,), drawn from one mixture: int64 (s, batch_size).

    `cumulative` (k,) is the cumulated sum of the mixture's probabilities.
    """
    teeth = np.arange(batch_size, dtype=np.float64)
    points = (teeth + random_uniform(seed, _COMB, steps)[:, None]) * (cumulative[-1] / batch_size)
    points = np.minimum(points, np.nextafter(cumulative[-1], 0.0))
    in_order = cumulative.searchsorted(points, side="right")
    return np.take_along_axis(in_order, _batch_order(seed, steps, batch_size), axis=1)


def keep_within(domains: Ints, room: Ints) -> Ints:
    """Replace draws beyond `room` (k,), samples a domain may still give, by draws from those with most room.

    Paced probabilities already keep every expected count within the room and systematic sampling keeps
    the count next to its expectation, so only rounding at the very end of a budget gets here.
    `domains` is (batch_size,); the sum of `room` must be at least that.
    """
    excess = np.bincount(domains, minlength=len(room)) - room
    if (excess <= 0).all():
        return domains
    domains = domains.copy()
    for domain in np.flatnonzero(excess > 0):
        for place in np.flatnonzero(domains == domain)[: excess[domain]]:
            substitute = int(np.argmin(excess))
            domains[place] = substitute
            excess[substitute] += 1
    return domains


def number_draws(domains: Ints, used: Ints) -> Ints:
    """Give each draw its number within its domain: the n-th sample ever drawn from it, from 0.

    `domains` (n,) in the order of drawing, `used` (k,) counted before the first of them: int64 (n,).
    """
    # Short numbers are sorted several times faster.
    kind = np.uint16 if len(used) <= 2**16 else np.int64
    order = domains.astype(kind).argsort(kind="stable")
    grouped = domains[order]
    first_of_group = np.flatnonzero(np.diff(grouped, prepend=-1))
    group_lengths = np.diff(first_of_group, append=len(grouped))
    within_group = np.arange(len(grouped)) - np.repeat(first_of_group, group_lengths)
    numbers = np.empty_like(domains)
    numbers[order] = used[grouped] + within_group
    return numbers


def _batch_order(seed: int, steps: Ints, batch_size: int) -> Ints:
    return random_bits(seed, _ORDER, steps[:, None], np.arange(batch_size)).argsort(axis=1)
