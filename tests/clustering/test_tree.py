from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clustering.trees.tree import FittedTree, fit_tree


@dataclass(frozen=True)
class Matrix:
    """Vectors in memory."""

    vectors: NDArray[np.float32]

    def rows(self, documents: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.vectors[documents]


def blobs(centers: int, per_center: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.normal(size=(centers, 16)), per_center, axis=0)
    points += 0.05 * rng.normal(size=points.shape)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def fit(vectors: NDArray[np.float32], **options: Any) -> FittedTree:
    defaults: dict[str, Any] = {"branching": (4, 4), "min_split": 8, "seed": 0}
    return fit_tree(Matrix(vectors), np.arange(len(vectors)), **(defaults | options))


def test_separate_blobs_become_separate_domains() -> None:
    fitted = fit(blobs(4, 50))
    first_level = np.searchsorted(fitted.tree.leaf_bounds(1), fitted.leaf, "right") - 1
    assert [len(set(first_level[i : i + 50])) for i in range(0, 200, 50)] == [1, 1, 1, 1]
    assert fitted.tree.levels == (1, 4, 16)
    assert fitted.distance.max() < 0.1


def test_documents_lie_where_assignment_puts_them() -> None:
    vectors = blobs(7, 40)
    fitted = fit(vectors)
    assert fitted.tree.assign(vectors).tolist() == fitted.leaf.tolist()
    nearest = fitted.tree.centroids[-1][fitted.leaf]
    np.testing.assert_allclose(fitted.distance, 1 - (nearest * vectors).sum(1), atol=1e-6)


def test_centroids_are_unit_and_parents_ascend() -> None:
    tree = fit(blobs(5, 60), branching=(3, 3, 3)).tree
    for centroids, parents in zip(tree.centroids, tree.parents, strict=True):
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
        assert (np.diff(parents) >= 0).all()


def test_a_small_node_is_its_own_only_child() -> None:
    vectors = np.concatenate([blobs(1, 100, seed=1), blobs(1, 5, seed=2)])
    fitted = fit(vectors, branching=(2, 3), min_split=20)
    small = int(np.searchsorted(fitted.tree.leaf_bounds(1), fitted.leaf[-1], "right") - 1)
    children = np.flatnonzero(fitted.tree.parents[1] == small)
    assert len(children) == 1
    np.testing.assert_array_equal(
        fitted.tree.centroids[1][children[0]], fitted.tree.centroids[0][small]
    )


def test_equal_documents_make_one_domain_and_no_warning() -> None:
    fitted = fit(np.repeat(blobs(1, 1), 30, axis=0))
    assert fitted.tree.levels == (1, 1, 1)
    assert len(fitted.tree.split_order) == 0


def test_one_document() -> None:
    assert fit(blobs(1, 1)).tree.levels == (1, 1, 1)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_seed_decides(seed: int) -> None:
    vectors = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = fit(vectors, seed=seed), fit(vectors, seed=seed)
    for one, other in zip(first.tree.centroids, second.tree.centroids, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.tree.split_order, second.tree.split_order)
    np.testing.assert_array_equal(first.leaf, second.leaf)


def test_a_fit_on_a_sample_places_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustering.trees.tree.FIT_DOCUMENTS_PER_CHILD", 10)
    monkeypatch.setattr("clustering.trees.tree.FULL_BATCH_LIMIT", 0)
    monkeypatch.setattr("clustering.trees.tree.ASSIGN_DOCUMENTS", 17)
    fitted = fit(blobs(4, 100))
    assert len(fitted.leaf) == 400
    first_level = np.searchsorted(fitted.tree.leaf_bounds(1), fitted.leaf, "right") - 1
    assert all(len(set(first_level[i : i + 100])) == 1 for i in range(0, 400, 100))
