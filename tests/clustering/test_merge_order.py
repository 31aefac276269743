from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from clustering.trees.merge_order import order_siblings, split_order
from clustering.trees.tree import Tree, leaf_bounds_per_level


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = rng.normal(size=(count, 5))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_first_boundaries_cut_scipys_dendrogram_of_all_members(
    count: int, largest: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    centroids, sizes = unit_rows(rng, count), rng.integers(1, largest + 1, count)
    siblings = order_siblings(centroids, sizes)
    assert sorted(siblings.order) == list(range(count))
    assert sorted(siblings.boundaries) == list(range(1, count))
    assert (np.diff(siblings.heights) <= 1e-9).all()
    first_members = np.cumsum(sizes) - sizes
    members = np.repeat(centroids.astype(np.float64), sizes, axis=0)
    for k in range(1, count + 1):
        domain = np.searchsorted(np.sort(siblings.boundaries[: k - 1]), np.arange(count), "right")
        ours = np.empty(count, dtype=int)
        ours[siblings.order] = domain
        if count > 1:
            scipys = fcluster(linkage(members, "ward"), k, "maxclust")[first_members]
            same = ours[:, None] == ours[None, :]
            assert (same == (scipys[:, None] == scipys[None, :])).all()


@pytest.mark.parametrize(("members", "first"), [(1, {0}), (100, {2})])
def test_an_outlier_splits_first_where_it_has_many_members(members: int, first: set[int]) -> None:
    angles = np.array([0, 0.6, 1.8])
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    siblings = order_siblings(centroids, np.array([100, 100, members]))
    cut = siblings.boundaries[0]
    assert first in (set(siblings.order[:cut]), set(siblings.order[cut:]))


def test_equal_centroids_merge_at_no_cost() -> None:
    centroids = np.repeat(unit_rows(np.random.default_rng(0), 2), 20, axis=0)
    siblings = order_siblings(centroids, np.arange(1, 41))
    assert sorted(siblings.order) == list(range(40))
    assert siblings.boundaries[0] == 20
    assert siblings.heights[1:].max() < 1e-9


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree of two or three levels with one to five children a node."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parents, siblings, domains = [], [], 1
    for _ in range(draw(st.integers(2, 3))):
        children = rng.integers(1, 6, domains)
        siblings.append(
            [
                order_siblings(unit_rows(rng, int(count)), rng.integers(1, 100, count))
                for count in children
            ]
        )
        parents.append(np.repeat(np.arange(domains), children))
        domains = int(children.sum())
    bounds = leaf_bounds_per_level(parents)
    centroids = tuple(unit_rows(rng, len(p)) for p in parents)
    order = split_order(siblings, bounds[1:])
    return Tree(centroids=centroids, parents=tuple(parents), split_order=order)


@given(trees())
def test_every_k_is_contiguous_disjoint_complete_and_nested(tree: Tree) -> None:
    assert sorted(tree.split_order) == list(range(1, tree.num_leaves))
    coarser: set[int] = set()
    for k in range(1, tree.num_leaves + 1):
        bounds = {0, *tree.split_order[: k - 1].tolist(), tree.num_leaves}
        assert len(bounds) == k + 1
        assert coarser <= bounds
        coarser = bounds


@given(trees())
def test_levels_are_prefixes(tree: Tree) -> None:
    for level, k in enumerate(tree.levels):
        bounds = np.sort([0, *tree.split_order[: k - 1], tree.num_leaves])
        assert bounds.tolist() == tree.leaf_bounds(level).tolist()
        if level:
            first_leaves = tree.leaf_bounds(level)[:-1]
            above = np.searchsorted(tree.leaf_bounds(level - 1), first_leaves, "right") - 1
            assert above.tolist() == tree.parents[level - 1].tolist()
