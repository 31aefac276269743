"""The order in which siblings merge, so that one array gives every granularity.

Ward linkage on the centroids inside each parent says which siblings are most alike. Put in the order of
the dendrogram, every merge joins neighbors; read backwards, every merge is a split at one boundary. So the
whole hierarchy is one list of leaf boundaries in the order in which they split the corpus
(`split_order`), and the view of k domains is its first k - 1 boundaries.
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
    """float64 (k-1,): Ward's merge distance of each boundary, decreasing."""


def order_siblings(centroids_kd: NDArray[np.float32]) -> SiblingOrder:
    """Order the children of one parent by Ward linkage (Ward 1963, as in scipy) on their centroids."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    k = len(centroids_kd)
    if k == 1:
        empty = np.empty(0, dtype=np.int64)
        return SiblingOrder(
            order=np.zeros(1, dtype=np.int64), boundaries=empty, heights=np.empty(0)
        )
    merges = linkage(centroids_kd.astype(np.float64), method="ward")
    order = leaves_list(merges).astype(np.int64)
    position = np.empty(k, dtype=np.int64)
    position[order] = np.arange(k)
    begin = np.concatenate([position, np.zeros(k - 1, dtype=np.int64)])
    size = np.concatenate([np.ones(k, dtype=np.int64), np.zeros(k - 1, dtype=np.int64)])
    boundaries = np.empty(k - 1, dtype=np.int64)
    for row, (a, b) in enumerate(merges[:, :2].astype(np.int64)):
        begin[k + row] = min(begin[a], begin[b])
        size[k + row] = size[a] + size[b]
        boundaries[row] = max(begin[a], begin[b])
    # The last merge is the first split; Ward's distances never decrease from one merge to the next.
    return SiblingOrder(order=order, boundaries=boundaries[::-1], heights=merges[::-1, 2])


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
        level by decreasing Ward distance over all parents. Every prefix is a set of domains, because
        a parent's distances decrease, and because any set of boundaries divides a range.
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
