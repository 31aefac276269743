"""A random sample of the vectors in a folder, in two passes and bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clustering.embedding.foreign_embeddings import find_foreign
from clustering.work.keyed_hash import keyed


def sample_vectors(folder: Path, count: int, *, seed: int) -> NDArray[np.float16]:
    """About `count` vectors, or all where there are fewer: float16 (n, dim), scaled to unit norm.

    Raises:
        InputError: There are no files with vectors, or one cannot be used.
    """
    files = find_foreign(folder)
    total = sum(len(ids) for file in files for ids in file.ids())
    share = count / max(1, total)
    chosen, begin = [], 0
    for file in files:
        for vectors in file.vectors():
            numbers = np.arange(begin, begin + len(vectors), dtype=np.uint64)
            begin += len(vectors)
            keys = keyed(numbers, seed=seed, purpose="suggest")
            taken = vectors[keys < np.uint64(int(share * 2.0**64))] if share < 1 else vectors
            norms = np.linalg.norm(taken.astype(np.float32), axis=1, keepdims=True)
            chosen.append((taken / np.maximum(norms, 1e-12)).astype(np.float16))
    return np.concatenate(chosen)
