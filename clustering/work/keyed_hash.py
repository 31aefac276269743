"""Digests of texts, and orders drawn from them that depend on nothing but the text and a seed.

Held-out documents, samples and the order inside a leaf are chosen by these keys. They do not change when
files are renamed, split or read in another order, and need no state.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from pipeline.stream.counter_rng import mixed


def text_digest(text: str) -> bytes:
    """16 bytes that identify a text (BLAKE2b)."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def keyed(numbers: NDArray[np.uint64], *, seed: int, purpose: str) -> NDArray[np.uint64]:
    """Mix numbers with a seed and a purpose: uint64 (n,) -> uint64 (n,), independent per purpose.

    One round of the stream's generator over the number plus a key.
    """
    key = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return mixed(numbers.astype(np.uint64) ^ np.uint64(int.from_bytes(key, "little")))
