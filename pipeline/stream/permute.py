"""A keyed permutation of 0..n-1 that is computed, never stored.

Every pass over a domain has an order of its own; at 262,144 domains no such order can be kept in
memory. Instead the index is split into two digits (l, r) of a grid a × b that just covers n, and a
Feistel network adds keyed hashes of one digit to the other, modulo its base: each round is invertible,
so the whole is a bijection of the grid. Results outside 0..n-1 go round again (cycle walking; Black and
Rogaway, CT-RSA 2002), which keeps it a bijection of 0..n-1. The grid is tight, a·b < n + a, so that
rarely happens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.stream.counter_rng import random_bits

_ROUNDS = 3
_ROUND_KEYS = random_bits(0, 0x7065726D, np.arange(2 * _ROUNDS))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's 64-bit finaliser (Appleby, 2011)
_MULTIPLIER_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT_29, _SHIFT_32 = np.uint64(29), np.uint64(32)


def permute(
    index: NDArray[np.int64], size: NDArray[np.int64], key: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Image of `index` under the permutation of 0..size-1 chosen by `key`, element by element.

    All three have shape (n,); 0 <= index < size < 2**62. Returns int64 (n,), again in 0..size-1.
    """
    rows = np.ceil(np.sqrt(size)).astype(np.uint64)
    columns = (-(-size // rows.astype(np.int64))).astype(np.uint64)
    image = _feistel(index.astype(np.uint64), rows, columns, key)
    outside = np.flatnonzero(image >= size.astype(np.uint64))
    while outside.size:
        image[outside] = _feistel(image[outside], rows[outside], columns[outside], key[outside])
        outside = outside[image[outside] >= size[outside].astype(np.uint64)]
    return image.astype(np.int64)


def _feistel(
    value: NDArray[np.uint64],
    rows: NDArray[np.uint64],
    columns: NDArray[np.uint64],
    key: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    left = value // columns
    right = value - left * columns
    for round_number in range(_ROUNDS):
        _add_hash(left, right, key ^ _ROUND_KEYS[2 * round_number], rows)
        _add_hash(right, left, key ^ _ROUND_KEYS[2 * round_number + 1], columns)
    return left * columns + right


def _add_hash(
    digit: NDArray[np.uint64],
    other: NDArray[np.uint64],
    round_key: NDArray[np.uint64],
    base: NDArray[np.uint64],
) -> None:
    """Add a keyed hash of the `other` digit to `digit`, modulo `base` (below 2**32), in place."""
    bits = other * _GOLDEN
    bits ^= round_key
    bits ^= bits >> _SHIFT_32
    bits *= _MULTIPLIER_1
    bits ^= bits >> _SHIFT_29
    bits *= _MULTIPLIER_2
    bits >>= _SHIFT_32  # the best bits of a product are its upper half
    bits *= base
    bits >>= _SHIFT_32  # now uniform in 0..base-1
    digit += bits
    np.minimum(digit, digit - base, out=digit)  # below zero wraps around to the largest numbers
