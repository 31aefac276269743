"""The order in which siblings merge, so that one array gives every granularity.

Ward linkage inside each parent, every child with the weight of its members, says which siblings to join at
the least loss. Put in the order of the dendrogram, every merge joins neighbors; read backwards, every merge
is a split at one boundary. So the whole hierarchy is one list of leaf boundaries in the order in which they
split the corpus (`split_order`), and the view of k domains is its first k - 1 boundaries.

Without the weights a handful of odd documents counts as much as a large domain, and leaves it early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class SiblingOrder:
    """How the k children of one parent lie side by side."""

    order: NDArray[np.int64]
    """int64 (k,): children in the order of the dendrogram."""
    boundaries: NDArray[np.int64]
    """int64 (k-1,): positions 1..k-1 in that order, the boundary that splits first in front."""
    heights: NDArray[np.float64]
    """float64 (k-1,): what each boundary takes off the sum of squared distances, decreasing."""


def order_siblings(centroids_kd: NDArray[np.float32], sizes_k: NDArray[np.int64]) -> SiblingOrder:
    """Order the children of one parent by Ward linkage on their centroids, weighted by size.

    Args:
        centroids_kd: float32 (k, dim), k >= 1.
        sizes_k: int64 (k,): members of each child, at least 1.
    """
    merges = sorted(ward_merges(centroids_kd, sizes_k), key=lambda merge: merge.height)
    parts = [[child] for child in range(len(centroids_kd))]
    firsts = []
    for merge in merges:
        firsts.append(parts[merge.joined][0])
        parts[merge.into] += parts[merge.joined]
    order = np.array(parts[merges[-1].into] if merges else parts[0], dtype=np.int64)
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    # The last merge is the first split.
    return SiblingOrder(
        order=order,
        boundaries=position[np.array(firsts[::-1], dtype=np.int64)],
        heights=np.array([merge.height for merge in reversed(merges)]),
    )


@dataclass(frozen=True, slots=True)
class Merge:
    """The cluster of child `joined` comes into that of child `into`, which stands for both from then on."""

    height: float
    joined: int
    into: int


def ward_merges(centroids_kd: NDArray[np.float32], sizes_k: NDArray[np.int64]) -> list[Merge]:
    """Ward's minimum-variance clustering (Ward 1963) of points with weights: k - 1 merges, inner ones first.

    The height is what a merge adds to the sum of squared distances, n_a n_b / (n_a + n_b) |c_a - c_b|². By
    nearest-neighbor chains (Murtagh 1983) in O(k²): clusters that are each other's nearest merge at once,
    which for Ward gives the same tree as looking for the least height of all.
    """
    from scipy.spatial.distance import pdist, squareform

    k = len(centroids_kd)
    size = sizes_k.astype(np.float64)
    cost = squareform(pdist(centroids_kd.astype(np.float64), "sqeuclidean"))
    cost *= size[:, None] * size / (size[:, None] + size)
    np.fill_diagonal(cost, np.inf)  # as is the cost of what is no cluster any more
    present = np.ones(k, dtype=bool)
    inside = np.zeros(k)  # the greatest height inside each cluster
    merges: list[Merge] = []
    chain: list[int] = []
    while len(merges) < k - 1:
        if not chain:
            chain = [int(np.argmax(present))]
        while (nearest := _nearest(cost[chain[-1]], chain[-2:-1])) not in chain[-2:-1]:
            chain.append(nearest)
        joined, into = chain.pop(), chain.pop()
        # Rounding may put it below a height inside, where it cannot be.
        height = inside[into] = max(cost[joined, into], inside[joined], inside[into])
        merges.append(Merge(float(height), joined, into))
        # Lance and Williams (1967): from the costs of the two to the costs of both together.
        both = (size[joined] + size) * cost[joined] + (size[into] + size) * cost[into]
        both = (both - size * height) / (size[joined] + size[into] + size)
        present[joined] = False
        both[~present] = both[into] = np.inf
        size[into] += size[joined]
        cost[joined] = cost[:, joined] = np.inf
        cost[into] = cost[:, into] = both
    return merges


def _nearest(costs: NDArray[np.float64], before: Sequence[int]) -> int:
    """The cluster of least cost; among equal ones the one `before` in the chain, or else the first."""
    nearest = int(np.argmin(costs))
    return next((one for one in before if costs[one] <= costs[nearest]), nearest)


def split_order(
    siblings_per_level: Sequence[Sequence[SiblingOrder]],
    leaf_bounds_per_level: Sequence[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Join the sibling orders of a tree into one list of boundaries.

    Args:
        siblings_per_level: Per level below the root: the sibling order of every parent, in domain order.
        leaf_bounds_per_level: Per level below the root: int64 (k+1,), the leaves where its domains begin.

    Returns:
        int64 (num_leaves-1,): leaf boundaries; those of a level before those of the next, and inside a
        level by decreasing height over all parents. Every prefix is a set of domains, because
        a parent's heights decrease, and because any set of boundaries divides a range.
    """
    pieces: list[NDArray[np.int64]] = []
    for siblings, leaf_bounds in zip(siblings_per_level, leaf_bounds_per_level, strict=True):
        firsts = np.cumsum([0, *(len(s.order) for s in siblings[:-1])])
        domains = np.concatenate([s.boundaries + f for s, f in zip(siblings, firsts, strict=True)])
        heights = np.concatenate([s.heights for s in siblings])
        # Stable: among equal heights the order inside a parent, from the root of its dendrogram down, stays.
        by_height = np.argsort(-heights, kind="stable")
        pieces.append(leaf_bounds[domains[by_height]])
    return np.concatenate(pieces).astype(np.int64)
