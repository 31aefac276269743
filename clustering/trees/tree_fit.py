"""Fitting a cluster tree on a sample, level by level.

The children of a node are found by k-means on its vectors of the sample (a bounded number of them), then all
its vectors go to the nearest child. In the end every leaf moves to the mean of the vectors that come to it
down the whole tree (descent.py), also of those from beyond its parent's border. A domain without vectors is
dropped: every leaf has members in the sample, and so in the corpus that the sample was drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.errors import BuildError
from clustering.trees.descent import (
    GPU_BLOCK_ROWS,
    NumpyDescent,
    TorchDescent,
    as_float32,
    one_thread,
)
from clustering.trees.kmeans import Node, choose_kmeans, unit
from clustering.trees.merge_order import SiblingOrder, order_siblings, split_order
from clustering.trees.tree import Tree, leaf_bounds_per_level
from pipeline.cores import usable_cores

ROWS_PER_CHILD = 1_024
"""k-means of a node sees at most this many of its rows per child."""
LEAST_ROWS = 4
"""A node gets no more children than leave each this many rows of the sample on average."""
LARGEST_LEAF = 5.0
"""By default, no leaf shall have more than this many times the mean."""
MARGIN = 0.8
"""The sample is balanced to this share of the bound, because the corpus differs from it by chance."""
ASSIGN_ROWS = 2**15
MEAN_ROWS = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedSample:
    """A tree and where its sample is in it."""

    tree: Tree
    leaf: NDArray[np.int64]
    """int64 (n,): leaf of each vector of the sample."""
    largest_share: tuple[float, ...]
    """Per level: most vectors that a domain has of its parent's, where the parent has several children."""


def fit_sample(
    vectors: NDArray[np.floating[Any]],
    *,
    branching: Sequence[int],
    min_split: int,
    max_share: float | None,
    seed: int,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda rows: None,
) -> FittedSample:
    """Cluster a sample.

    Args:
        vectors: float16 or float32 (n, dim), unit norm, n >= 1; may be memory-mapped.
        branching: Children per node, level by level.
        min_split: A node with fewer vectors is its own only child.
        max_share: Most that a domain shall have of its parent's vectors. By default no leaf shall have
            more than five times the mean.
        seed: Decides starts and samples; equal input and seed give equal trees on the same device.
        device: `cpu` (scikit-learn), or `cuda` and `cuda:1` (torch).
        advance: Called with the vectors placed since the last call, once per level each.

    Raises:
        BuildError: `max_share` cannot hold: so few children would have less than all.
    """
    check_share(max_share, branching)
    kmeans = choose_kmeans(device)
    node = np.zeros(len(vectors), dtype=np.int64)
    centroids = unit(_mean(vectors, seed)[None])
    centroids_per_level: list[NDArray[np.float32]] = []
    parents_per_level: list[NDArray[np.int64]] = []
    for level, num_children in enumerate(branching, start=1):
        by_node = np.argsort(node, kind="stable")
        bounds = np.searchsorted(node[by_node], np.arange(len(centroids) + 1))
        limit = _limit(len(vectors), branching, level)
        split: list[int] = []
        nodes: list[Node] = []
        for parent in range(len(centroids)):
            rows = by_node[bounds[parent] : bounds[parent + 1]]
            children = min(num_children, len(rows) // LEAST_ROWS)
            if len(rows) < max(min_split, 2) or children < 2:
                continue
            start_seed = np.random.SeedSequence([seed, level, parent])
            most = limit / len(rows) if max_share is None else max_share * MARGIN
            rows = _thinned(rows, ROWS_PER_CHILD * children, start_seed)
            split.append(parent)
            nodes.append(
                Node(
                    rows=rows,
                    children=children,
                    limit=max(1, math.ceil(min(1.0, most) * len(rows))),
                    seed=int(start_seed.generate_state(1)[0]),
                )
            )
        found = dict(zip(split, kmeans(vectors, nodes), strict=True))
        of_parent = [found.get(parent, centroids[[parent]]) for parent in range(len(centroids))]
        parents = np.repeat(np.arange(len(of_parent)), [len(of) for of in of_parent])
        child = _place(vectors, [np.concatenate(of_parent)], [parents], device, node=node)
        advance(len(child))
        centroids, parents, node, _ = _in_order(of_parent, child)
        centroids_per_level.append(centroids)
        parents_per_level.append(parents)
    leaf = _place(vectors, centroids_per_level, parents_per_level, device)
    centroids_per_level[-1] = _leaf_means(vectors, leaf, centroids_per_level[-1])
    leaf = _place(vectors, centroids_per_level, parents_per_level, device)
    return _without_empty(centroids_per_level, parents_per_level, leaf)


def check_share(max_share: float | None, branching: Sequence[int]) -> None:
    """Refuse a bound that no clustering can keep.

    Raises:
        BuildError: Children of equal size would be above it.
    """
    least = 1.0 / min(branching)
    if max_share is not None and not least < max_share <= 1:
        raise BuildError(
            f"--max-share is {max_share:g}; it bounds what a domain has of its parent's documents, so it "
            f"must lie above {least:g} (one of {min(branching)} equal children) and be at most 1."
        )


def _limit(num_rows: int, branching: Sequence[int], level: int) -> float:
    """Rows that a domain of a level may have: a leaf `LARGEST_LEAF` times the mean, the others half of that.

    So the children of the largest domain above the leaves still have room to differ by twice.
    """
    excess = LARGEST_LEAF if level == len(branching) else LARGEST_LEAF / 2
    return MARGIN * excess * num_rows / math.prod(branching[:level])


def _thinned(rows: NDArray[np.int64], most: int, seed: np.random.SeedSequence) -> NDArray[np.int64]:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _place(
    vectors: NDArray[np.floating[Any]],
    centroids: Sequence[NDArray[np.float32]],
    parents: Sequence[NDArray[np.int64]],
    device: str,
    node: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Where each vector is at the last of these levels, from `node` above the first one on: int64 (n,)."""
    on_gpu = device.startswith("cuda")
    descent = (
        TorchDescent(centroids, parents, device) if on_gpu else NumpyDescent(centroids, parents)
    )
    leaf = np.empty(len(vectors), dtype=np.int64)
    rows = GPU_BLOCK_ROWS if on_gpu else ASSIGN_ROWS

    def place(begin: int) -> None:
        block = slice(begin, begin + rows)
        leaf[block], _ = descent(vectors[block], None if node is None else node[block])

    workers = 1 if on_gpu else usable_cores()
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        list(pool.map(place, range(0, len(vectors), rows)))
    return leaf


def _leaf_means(
    vectors: NDArray[np.floating[Any]], leaf: NDArray[np.int64], centroids: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The means of the vectors of each leaf, scaled to norm 1; a leaf without any stays where it is."""
    by_leaf = np.argsort(leaf, kind="stable")
    bounds = np.searchsorted(leaf[by_leaf], np.arange(len(centroids) + 1))
    means = centroids.copy()
    for number in range(len(centroids)):
        rows = by_leaf[bounds[number] : bounds[number + 1]]
        if len(rows):
            means[number] = as_float32(vectors[rows]).mean(axis=0)
    return unit(means)


def _without_empty(
    centroids: Sequence[NDArray[np.float32]],
    parents: Sequence[NDArray[np.int64]],
    leaf: NDArray[np.int64],
) -> FittedSample:
    """The tree of these levels without the domains that have no vectors."""
    domains = [leaf]  # of each vector, level by level
    for old_parents in parents[:0:-1]:
        domains.insert(0, old_parents[domains[0]])
    kept: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
    siblings_per_level: list[list[SiblingOrder]] = []
    shares: list[float] = []
    before = np.zeros(1, dtype=np.int64)  # the numbers that the domains of the level above had
    for old_centroids, old_parents, domain in zip(centroids, parents, domains, strict=True):
        children = [np.flatnonzero(old_parents == parent) for parent in before]
        place = np.empty(len(old_centroids), dtype=np.int64)
        place[np.concatenate(children)] = np.arange(sum(map(len, children)))
        found = _in_order([old_centroids[of] for of in children], place[domain])
        new_centroids, new_parents, number, siblings = found
        before = np.empty(len(new_centroids), dtype=np.int64)
        before[number] = domain
        counts, siblings_counts = np.bincount(number), np.bincount(new_parents[number])
        several = np.bincount(new_parents)[new_parents] > 1
        shares.append(float((counts / siblings_counts[new_parents])[several].max(initial=0.0)))
        kept.append((new_centroids, new_parents))
        siblings_per_level.append(siblings)
    kept_centroids, kept_parents = zip(*kept, strict=True)
    leaf_bounds = leaf_bounds_per_level(kept_parents)
    tree = Tree(
        centroids=kept_centroids,
        parents=kept_parents,
        split_order=split_order(siblings_per_level, leaf_bounds[1:]),
    )
    return FittedSample(tree=tree, leaf=number, largest_share=tuple(shares))


def _in_order(
    of_parent: Sequence[NDArray[np.float32]], child: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], list[SiblingOrder]]:
    """Children with members, in their dendrograms' order: centroids, parents, child per vector, orders."""
    sizes = [len(of) for of in of_parent]
    members_per_child = np.bincount(child, minlength=sum(sizes))
    number = np.full(sum(sizes), -1, dtype=np.int64)
    kept: list[NDArray[np.float32]] = []
    siblings: list[SiblingOrder] = []
    begin = count = 0
    for of in of_parent:
        members = members_per_child[begin : begin + len(of)]
        has_members = np.flatnonzero(members)
        order = order_siblings(of[has_members], members[has_members])
        in_order = has_members[order.order]
        number[begin + in_order] = count + np.arange(len(in_order))
        kept.append(of[in_order])
        siblings.append(order)
        begin, count = begin + len(of), count + len(in_order)
    parents = np.repeat(np.arange(len(kept)), [len(of) for of in kept]).astype(np.int64)
    return np.concatenate(kept), parents, number[child], siblings


def _mean(vectors: NDArray[np.floating[Any]], seed: int) -> NDArray[np.float32]:
    """Mean of all vectors, or of enough of them: float32 (dim,)."""
    assert len(vectors), "a tree needs at least one vector"
    rows = _thinned(np.arange(len(vectors)), MEAN_ROWS, np.random.SeedSequence([seed]))
    mean: NDArray[np.float32] = as_float32(vectors[rows]).mean(axis=0)
    return mean
