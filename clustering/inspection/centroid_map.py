"""A flat map of domains: which of them are alike, as far as two dimensions can show it.

The first two principal axes of 4,096 centroids of MiniLM hold a ninth of their variance, and of the ten
nearest neighbors of a domain on that map most are strangers. t-SNE keeps neighbors together (trustworthiness
0.99 instead of 0.77 there), and started from the principal axes it gives the same map every time, with its
large groups where the axes put them. Sources: L. van der Maaten, G. Hinton, "Visualizing data using t-SNE"
(2008); D. Kobak, P. Berens, "The art of using t-SNE for single-cell transcriptomics" (2019).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline import Corpus

PERPLEXITY = 30.0
ITERATIONS = 300
"""4,096 domains take 4 s; 500 iterations move islands further apart, not more rightly (0.995 for 0.990)."""
FEW = 16
"""So few domains are shown by their principal axes: neighborhoods of neighborhoods need more."""


def view_centroids(corpus: Corpus, *, k: int) -> NDArray[np.float32]:
    """Centroids of the domains of a view: float32 (k, dim).

    Where the view is a level of the tree they are the tree's; elsewhere means of those of the next finer
    level, each weighing as much as its samples. Raises `CorpusError` for a corpus without centroids.
    """
    levels = (level for level, count in enumerate(corpus.levels) if level and count >= k)
    level = next(levels, len(corpus.levels))
    centroids = corpus.centroids(level)
    if len(centroids) == k:
        return centroids
    finer = corpus.domains(level=level)
    first = np.searchsorted(finer.parents_in(corpus.domains(k=k)), np.arange(k))
    weights = np.maximum(finer.sizes, 1).astype(np.float32)[:, None]
    means: NDArray[np.float32] = np.add.reduceat(centroids * weights, first)
    means /= np.add.reduceat(weights, first)
    return means


def lay_out(centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places on a map of 1 by 1 for centroids (k, dim): float32 (k, 2); alike ones are near each other."""
    places = principal_axes(centroids)
    if len(places) > FEW:
        from sklearn.manifold import TSNE

        start = places / max(float(places[:, 0].std()), 1e-12) * 1e-4
        places = TSNE(
            init=start,
            perplexity=min(PERPLEXITY, len(places) / 4),
            max_iter=ITERATIONS,
            random_state=0,
        ).fit_transform(centroids)
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    scaled: NDArray[np.float32] = np.where(
        extent > 0, (places - low) / np.maximum(extent, 1e-12), 0.5
    )
    return scaled.astype(np.float32)


def principal_axes(centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinates of (k, dim) along the two axes of the largest variance: float32 (k, 2).

    Each axis points to where its largest component is positive, so that equal centroids give equal maps.
    """
    centered = centroids - centroids.mean(axis=0)
    _, axes = np.linalg.eigh(centered.T.astype(np.float64) @ centered)
    chosen = axes[:, : -min(2, len(axes)) - 1 : -1]
    largest = np.abs(chosen).argmax(axis=0)
    chosen = chosen * np.where(chosen[largest, np.arange(chosen.shape[1])] < 0, -1, 1)
    coordinates: NDArray[np.float32] = np.zeros((len(centroids), 2), dtype=np.float32)
    coordinates[:, : chosen.shape[1]] = centered @ chosen
    return coordinates
