"""The flat map of centroids: neighbors stay neighbors, the same map every time, any number of domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clustering.inspection.centroid_map import FEW, lay_out, principal_axes, view_centroids
from pipeline import CorpusError, open_corpus
from tests.corpora import write_corpus


def islands(count: int, members: int, dim: int = 24) -> NDArray[np.float32]:
    """Unit vectors around `count` directions, in random order within the islands: (count * members, dim)."""
    random = np.random.default_rng(0)
    centers = np.repeat(random.normal(size=(count, dim)), members, axis=0)
    points = centers + 0.4 * random.normal(size=centers.shape)
    unit: NDArray[np.float32] = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def test_neighbors_stay_neighbors() -> None:
    centroids = islands(40, 10)
    places = lay_out(centroids)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    island = np.arange(len(places)) // 10
    assert (island[apart.argmin(axis=1)] == island).mean() > 0.98
    along = principal_axes(centroids)
    flat = np.linalg.norm(along[:, None] - along[None], axis=2)
    np.fill_diagonal(flat, np.inf)
    assert (island[flat.argmin(axis=1)] == island).mean() < 0.6, "which two axes cannot do"


@pytest.mark.parametrize("count", [1, 2, 3, FEW, FEW + 1, 100])
def test_the_map_is_filled_and_always_the_same(count: int) -> None:
    centroids = islands(count, 1)
    places = lay_out(centroids)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert places.min() >= 0
    assert places.max() <= 1
    np.testing.assert_array_equal(places, lay_out(centroids.copy()))


@pytest.mark.parametrize("count", [2, 40])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_equal_centroids_have_a_place(count: int, dim: int) -> None:
    places = lay_out(np.ones((count, dim), dtype=np.float32))
    assert np.isfinite(places).all()


def test_a_view_between_levels_takes_means_by_samples(tmp_path: Path) -> None:
    folder = write_corpus(
        tmp_path / "corpus", [1, 3, 0, 4], levels=(1, 2, 4), split_order=[2, 1, 3]
    )
    corpus = open_corpus(folder)
    leaves = corpus.centroids(2)
    np.testing.assert_array_equal(view_centroids(corpus, k=4), leaves)
    np.testing.assert_array_equal(view_centroids(corpus, k=2), corpus.centroids(1))
    three = view_centroids(corpus, k=3)
    np.testing.assert_allclose(three[:2], leaves[:2])
    np.testing.assert_allclose(three[2], (leaves[2] + 4 * leaves[3]) / 5, rtol=1e-6)
    np.testing.assert_allclose(view_centroids(corpus, k=1)[0], corpus.centroids(1).mean(axis=0))


def test_a_corpus_without_centroids_says_so(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", [5], levels=(1,))
    with pytest.raises(CorpusError, match="no centroids"):
        view_centroids(open_corpus(folder), k=1)
