"""The nearest domains of every domain, by the cosine of their centroids, a chunk of rows at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.trees.descent import one_thread

CHUNK_SIMILARITIES = 2**24


def nearest_domains(
    centroids: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` nearest others, the nearest first, and their cosines.

    Args:
        centroids: float32 (k, dim), unit norm.
        count: How many; fewer where there are not so many others.

    Returns:
        int64 (k, m) and float32 (k, m), m = min(count, k - 1). Ties go to the lower index.
    """
    k = len(centroids)
    count = min(count, k - 1)
    nearest = np.empty((k, count), dtype=np.int64)
    cosine = np.empty((k, count), dtype=np.float32)
    if count == 0:
        return nearest, cosine
    step = max(1, CHUNK_SIMILARITIES // k)
    for begin in range(0, k, step):
        end = min(begin + step, k)
        with one_thread():
            similarity = centroids[begin:end] @ centroids.T
        similarity[np.arange(end - begin), np.arange(begin, end)] = -np.inf
        best = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similarity, best, axis=1)
        order = np.lexsort((best, -values), axis=1)
        nearest[begin:end] = np.take_along_axis(best, order, axis=1)
        cosine[begin:end] = np.take_along_axis(values, order, axis=1)
    return nearest, cosine
