"""The cluster tree: k-means per level on unit vectors, siblings in the order of their dendrogram.

Domains are numbered so that the children of a parent, and so the leaves of every domain of every level,
are contiguous. New vectors (target sets) go down the tree to the nearest centroid, level by level, exactly as
the documents did.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.trees.descent import NumpyDescent
from clustering.trees.merge_order import SiblingOrder, order_siblings, split_order

FIT_DOCUMENTS_PER_CHILD = 2_048
"""k-means is fitted on a sample of at most this many documents per child; all are assigned afterwards."""
MAX_FIT_DOCUMENTS = 262_144
FULL_BATCH_LIMIT = 2**25
"""Above this many documents x children, k-means works in mini-batches."""
RESTARTS = 4
ASSIGN_DOCUMENTS = 65_536
"""Documents whose vectors are in memory at a time while they are assigned."""


class Vectors(Protocol):
    """Vectors of numbered documents."""

    def rows(self, documents: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit vectors of the documents int64 (n,): float32 (n, dim)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """Domains of every level below the root."""

    centroids: tuple[NDArray[np.float32], ...]
    """Per level 1..L: float32 (k, dim), unit norm, in domain order."""
    parents: tuple[NDArray[np.int64], ...]
    """Per level 1..L: int64 (k,), non-decreasing: domain of the level above."""
    split_order: NDArray[np.int64]
    """int64 (num_leaves-1,): see merge_order.py."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Domains per level, from the root (1) to the leaves."""
        return (1, *(len(parents) for parents in self.parents))

    @property
    def num_leaves(self) -> int:
        """Domains of the last level."""
        return self.levels[-1]

    def leaf_bounds(self, level: int) -> NDArray[np.int64]:
        """int64 (k+1,): domain i of `level` owns leaves [bounds[i], bounds[i+1])."""
        return leaf_bounds_per_level(self.parents)[level]

    def assign(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Leaf of each vector: float32 (n, dim), unit norm -> int64 (n,)."""
        return NumpyDescent(self.centroids, self.parents)(vectors)[0]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What it is stored as, by file name."""
        arrays: dict[str, NDArray[Any]] = {"split_order.npy": self.split_order}
        for level, (centroids, parents) in enumerate(
            zip(self.centroids, self.parents, strict=True), start=1
        ):
            arrays[f"centroids.level{level}.npy"] = centroids
            arrays[f"parents.level{level}.npy"] = parents
        return arrays

    @classmethod
    def of(cls, array: Callable[[str], NDArray[Any]], num_levels: int) -> Tree:
        """The tree of these `arrays`, by file name; `num_levels` counts those below the root."""
        levels = range(1, num_levels + 1)
        return cls(
            centroids=tuple(array(f"centroids.level{level}.npy") for level in levels),
            parents=tuple(array(f"parents.level{level}.npy") for level in levels),
            split_order=array("split_order.npy"),
        )

    def save(self, folder: Path) -> list[str]:
        """Write the arrays into `folder`; returns the file names."""
        arrays = self.arrays()
        for name, array in arrays.items():
            np.save(folder / name, array)
        return sorted(arrays)

    @classmethod
    def load(cls, folder: Path, num_levels: int) -> Tree:
        """Read what `save` wrote; `num_levels` counts those below the root."""
        return cls.of(lambda name: np.load(folder / name), num_levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedTree:
    """A tree and where the documents are in it."""

    tree: Tree
    leaf: NDArray[np.int64]
    """int64 (n,): leaf of each document."""
    distance: NDArray[np.float32]
    """float32 (n,): cosine distance of each document to its leaf's centroid."""


def fit_tree(
    vectors: Vectors,
    documents: NDArray[np.int64],
    *,
    branching: Sequence[int],
    min_split: int,
    seed: int,
    advance: Callable[[int], None] = lambda documents: None,
) -> FittedTree:
    """Cluster documents level by level.

    Args:
        vectors: Where the vectors are.
        documents: int64 (n,): the documents to cluster, n >= 1.
        branching: Children per node, level by level.
        min_split: A node with fewer documents is its own only child.
        seed: Decides samples and starts; equal input and seed give equal trees.
        advance: Called with the number of documents assigned since the last call, once per level each.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    node = np.zeros(len(documents), dtype=np.int64)
    distance = np.zeros(len(documents), dtype=np.float32)
    centroids = _unit(_mean(vectors, documents)[None, :])
    centroids_per_level: list[NDArray[np.float32]] = []
    parents_per_level: list[NDArray[np.int64]] = []
    siblings_per_level: list[list[SiblingOrder]] = []
    for level, num_children in enumerate(branching, start=1):
        by_node = np.argsort(node, kind="stable")
        bounds = np.searchsorted(node[by_node], np.arange(len(centroids) + 1))
        child = np.empty_like(node)
        new_centroids: list[NDArray[np.float32]] = []
        siblings: list[SiblingOrder] = []
        for parent, parent_centroid in enumerate(centroids):
            here = by_node[bounds[parent] : bounds[parent + 1]]
            start = parent_centroid[None, :]
            if len(here) >= min_split:
                start_seed = np.random.SeedSequence([seed, level, parent])
                # One thread: the order in which threads add up would show in the last bits.
                with threadpool_limits(limits=1, user_api="openmp"):
                    start = _fit_children(vectors, documents[here], num_children, start_seed)
            kept, order, child_here, distance[here] = _place(vectors, documents[here], start)
            first = sum(len(c) for c in new_centroids)
            child[here] = first + child_here
            new_centroids.append(kept)
            siblings.append(order)
            advance(len(here))
        parents_per_level.append(
            np.repeat(np.arange(len(siblings)), [len(s.order) for s in siblings]).astype(np.int64)
        )
        centroids = np.concatenate(new_centroids)
        centroids_per_level.append(centroids)
        siblings_per_level.append(siblings)
        node = child
    leaf_bounds = leaf_bounds_per_level(parents_per_level)
    tree = Tree(
        centroids=tuple(centroids_per_level),
        parents=tuple(parents_per_level),
        split_order=split_order(siblings_per_level, leaf_bounds[1:]),
    )
    return FittedTree(tree=tree, leaf=node, distance=distance)


def _fit_children(
    vectors: Vectors, documents: NDArray[np.int64], num_children: int, seed: np.random.SeedSequence
) -> NDArray[np.float32]:
    """Centroids (k, dim) of one node's children by k-means on a sample of its documents."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    sample_size = min(FIT_DOCUMENTS_PER_CHILD * num_children, MAX_FIT_DOCUMENTS)
    if len(documents) > sample_size:
        chosen = np.random.default_rng(seed).choice(len(documents), sample_size, replace=False)
        documents = documents[np.sort(chosen)]
    k = min(num_children, len(documents))
    state = int(seed.generate_state(1)[0])
    if len(documents) * k <= FULL_BATCH_LIMIT:
        kmeans = KMeans(n_clusters=k, n_init=RESTARTS, random_state=state)
    else:
        kmeans = MiniBatchKMeans(n_clusters=k, n_init=1, batch_size=16_384, random_state=state)
    with warnings.catch_warnings():
        # Fewer distinct documents than children: the empty children are dropped, nothing to warn about.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans.fit(vectors.rows(documents))
    return _unit(kmeans.cluster_centers_)


def _place(
    vectors: Vectors, documents: NDArray[np.int64], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.float32], SiblingOrder, NDArray[np.int64], NDArray[np.float32]]:
    """Give documents to their nearest centroid; drop centroids without any; order the rest as siblings."""
    child = np.empty(len(documents), dtype=np.int64)
    distance = np.empty(len(documents), dtype=np.float32)
    for begin in range(0, len(documents), ASSIGN_DOCUMENTS):
        part = slice(begin, begin + ASSIGN_DOCUMENTS)
        child[part], distance[part] = _nearest(vectors.rows(documents[part]), centroids)
    used = np.unique(child)
    siblings = order_siblings(centroids[used])
    rank = np.full(len(centroids), -1, dtype=np.int64)
    rank[used[siblings.order]] = np.arange(len(used))
    return centroids[used[siblings.order]], siblings, rank[child], distance


def _nearest(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Index of the nearest centroid by cosine (ties: the first) and the cosine distance to it."""
    similarity = vectors @ centroids.T
    nearest = np.argmax(similarity, axis=1)
    best = np.take_along_axis(similarity, nearest[:, None], axis=1)[:, 0]
    return nearest.astype(np.int64), (1.0 - best).astype(np.float32)


def _mean(vectors: Vectors, documents: NDArray[np.int64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] | None = None
    for begin in range(0, len(documents), ASSIGN_DOCUMENTS):
        rows = vectors.rows(documents[begin : begin + ASSIGN_DOCUMENTS])
        part: NDArray[np.float64] = rows.sum(axis=0, dtype=np.float64)
        total = part if total is None else total + part
    assert total is not None, "a tree needs at least one document"
    return total / len(documents)


def _unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit


def leaf_bounds_per_level(parents: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Leaf bounds of every level, root included, from the parents of the levels below it."""
    bounds = [np.arange(len(parents[-1]) + 1, dtype=np.int64)]
    for parents_of_level in reversed(parents):
        num_parents = int(parents_of_level[-1]) + 1
        first_child = np.searchsorted(parents_of_level, np.arange(num_parents + 1))
        bounds.append(bounds[-1][first_child])
    return bounds[::-1]
