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

from pipeline.counter_rng import random_bits

_ROUNDS = 4
_PURPOSE = 0x7065726D
_SHIFT_32 = np.uint64(32)


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
        left = _add_modulo(left, _below(rows, key, 2 * round_number, right), rows)
        right = _add_modulo(right, _below(columns, key, 2 * round_number + 1, left), columns)
    return left * columns + right


def _below(
    bound: NDArray[np.uint64], key: NDArray[np.uint64], round_number: int, digit: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """A hash of `digit`, uniform in 0..bound-1; bound < 2**32, so a product and a shift suffice."""
    bits = random_bits(_PURPOSE, round_number, key, digit) >> _SHIFT_32
    return (bits * bound) >> _SHIFT_32


def _add_modulo(
    a: NDArray[np.uint64], b: NDArray[np.uint64], base: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    total = a + b
    total -= base * (total >= base)
    return total
