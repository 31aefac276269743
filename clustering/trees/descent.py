"""Going down a tree: from every vector to its leaf.

A vector follows the nearest node of each level, and the second nearest, too, where that is hardly farther (a
third of the vectors at k = 64), and belongs to the nearest of the leaves that it comes to. That finds half of
what greedy descent loses to the nearest of all leaves, at a quarter more time (docs/benchmarks.md).

Documents, target sets and documents that are added later all go this way, so equal texts meet in one leaf.
The rows of one node lie together (one sort per level), so that a level is one matrix product per node on the
CPU, and one batched product over tiles of rows on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 4_096
"""Vectors that go down together on the CPU: 6 MiB in float32 at 384 dimensions, about what a cache holds."""
GPU_BLOCK_ROWS = 2**20
TILE_ROWS = (8, 128)
"""Rows of a tile on the GPU, at least and at most: about the rows that a node gets, so little is padding."""

BRANCHES = 2
"""Nodes of a level whose children are looked at, at most."""
DOUBT = 0.1
"""The second is followed where it is at most this much farther, as a share of the distance to the nearest."""
NOWHERE = -2.0
"""Less than any cosine: there is no such child."""

Placed = tuple[NDArray[np.int64], NDArray[np.float32]]


class NumpyDescent:
    """Descent on the CPU, with the threads that BLAS has (see `one_thread`).

    Args:
        centroids: Per level: float32 (k, dim), unit norm.
        parents: Per level: int64 (k,), non-decreasing.
    """

    def __init__(
        self, centroids: Sequence[NDArray[np.float32]], parents: Sequence[NDArray[np.int64]]
    ) -> None:
        self._levels = [
            (level, first_children(of)) for level, of in zip(centroids, parents, strict=True)
        ]

    def __call__(
        self, vectors: NDArray[np.floating[Any]], node: NDArray[np.int64] | None = None
    ) -> Placed:
        """Leaf, int64 (n,), and cosine distance to its centroid, float32 (n,), of vectors (n, dim).

        With `node`, int64 (n,), they start at these parents of the first level instead of one root.
        """
        leaf = np.empty(len(vectors), dtype=np.int64)
        distance = np.empty(len(vectors), dtype=np.float32)
        for begin in range(0, len(vectors), BLOCK_ROWS):
            block = slice(begin, begin + BLOCK_ROWS)
            start = np.zeros(len(leaf[block]), dtype=np.int64) if node is None else node[block]
            leaf[block], distance[block] = self._block(vectors[block], start)
        return leaf, distance

    def _block(self, vectors: NDArray[np.floating[Any]], node: NDArray[np.int64]) -> Placed:
        vectors = as_float32(vectors)
        nodes, follows = node[:, None], np.ones((len(node), 1), dtype=np.bool_)
        for depth, (centroids, first_child) in enumerate(self._levels, start=1):
            branches = 1 if depth == len(self._levels) else BRANCHES
            entries, sorted_vectors = np.flatnonzero(follows), vectors
            if len(first_child) > 2:  # of one node every vector is an entry, in order
                entries = entries[np.argsort(nodes.ravel()[entries], kind="stable")]
                sorted_vectors = vectors[entries // nodes.shape[1]]
            found = np.zeros((nodes.size, branches), dtype=np.int64)
            cosines = np.full((nodes.size, branches), NOWHERE, dtype=np.float32)
            found[entries], cosines[entries] = _nearest_children(
                sorted_vectors, nodes.ravel()[entries], centroids, first_child, branches
            )
            found, cosines = found.reshape(len(node), -1), cosines.reshape(len(node), -1)
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :branches]
            nodes = np.take_along_axis(found, best, axis=1)
            distance = 1.0 - np.take_along_axis(cosines, best, axis=1)
            follows = distance <= (1 + DOUBT) * distance[:, :1]
            follows[:, 0] = True
        return nodes[:, 0], distance[:, 0]


def _nearest_children(
    vectors: NDArray[np.float32],
    node: NDArray[np.int64],
    centroids: NDArray[np.float32],
    first_child: NDArray[np.int64],
    count: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest children (n, count) of vectors that are sorted by node, and their cosines."""
    begins = np.flatnonzero(np.diff(node, prepend=-1))
    nodes = node[begins]
    lows, highs = first_child[nodes], first_child[nodes + 1]
    width = int((highs - lows).max(initial=1))
    cosines = np.full((len(node), width), NOWHERE, dtype=np.float32)
    ends = np.append(begins[1:], len(node))
    for begin, end, low, high in zip(
        begins.tolist(), ends.tolist(), lows.tolist(), highs.tolist(), strict=True
    ):
        cosines[begin:end, : high - low] = vectors[begin:end] @ centroids[low:high].T
    child = np.empty((len(node), count), dtype=np.int64)
    best = np.empty((len(node), count), dtype=np.float32)
    for rank in range(count):
        nearest = cosines.argmax(axis=1)[:, None]
        child[:, rank] = first_child[node] + nearest[:, 0]
        best[:, rank] = np.take_along_axis(cosines, nearest, axis=1)[:, 0]
        if rank + 1 < count:
            np.put_along_axis(cosines, nearest, NOWHERE, axis=1)
    return child, best


class TorchDescent:
    """Descent on a device of torch; the centroids stay there.

    Args:
        centroids: Per level: float32 (k, dim), unit norm.
        parents: Per level: int64 (k,), non-decreasing.
        device: `cuda`, `cuda:1`, `cpu`.
    """

    def __init__(
        self,
        centroids: Sequence[NDArray[np.float32]],
        parents: Sequence[NDArray[np.int64]],
        device: str,
    ) -> None:
        import torch

        self.device = torch.device(device)
        self._levels = []
        for level, of in zip(centroids, parents, strict=True):
            first = torch.from_numpy(first_children(of)).to(self.device)
            self._levels.append((torch.tensor(level, device=self.device), first))

    def __call__(
        self, vectors: NDArray[np.floating[Any]], node: NDArray[np.int64] | None = None
    ) -> Placed:
        """As `NumpyDescent`."""
        import torch

        leaf = np.empty(len(vectors), dtype=np.int64)
        distance = np.empty(len(vectors), dtype=np.float32)
        for begin in range(0, len(vectors), GPU_BLOCK_ROWS):
            block = slice(begin, begin + GPU_BLOCK_ROWS)
            start = None if node is None else torch.tensor(node[block], device=self.device)
            found = self.place(torch.tensor(vectors[block], device=self.device), start)
            leaf[block], distance[block] = found[0].cpu().numpy(), found[1].cpu().numpy()
        return leaf, distance

    def place(self, vectors: Any, node: Any = None) -> tuple[Any, Any]:
        """The same for a tensor (n, dim) on the device: tensors int64 and float32 (n,)."""
        import torch

        if node is None:
            node = torch.zeros(len(vectors), dtype=torch.int64, device=self.device)
        vectors = vectors.float()
        nodes, follows = node[:, None], torch.ones_like(node[:, None], dtype=torch.bool)
        for depth, (centroids, first_child) in enumerate(self._levels, start=1):
            branches = 1 if depth == len(self._levels) else BRANCHES
            entries = follows.view(-1).nonzero()[:, 0]
            found = nodes.new_zeros((nodes.numel(), branches))
            cosines = vectors.new_full((nodes.numel(), branches), NOWHERE)
            found[entries], cosines[entries] = self._nearest_children(
                vectors,
                entries // nodes.shape[1],
                nodes.view(-1)[entries],
                centroids,
                first_child,
                branches,
            )
            cosines, order = cosines.view(len(node), -1).sort(dim=1, descending=True, stable=True)
            nodes = found.view(len(node), -1).gather(1, order[:, :branches])
            distance = 1.0 - cosines[:, :branches]
            follows = distance <= (1 + DOUBT) * distance[:, :1]
            follows[:, 0] = True
        return nodes[:, 0], distance[:, 0]

    def _nearest_children(
        self,
        vectors: Any,
        rows: Any,
        node: Any,
        centroids: Any,
        first_child: Any,
        count: int,
    ) -> tuple[Any, Any]:
        """The nearest children (n, count) of the vectors `rows` (n,) at `node` (n,), and their cosines."""
        import torch

        num_nodes = len(first_child) - 1
        rows_per_node = torch.bincount(node, minlength=num_nodes)
        least, most = TILE_ROWS
        tile = most
        while tile > least and tile * num_nodes > 2 * len(node):
            tile //= 2
        tiles = (rows_per_node + tile - 1) // tile
        node_of_tile = torch.repeat_interleave(torch.arange(num_nodes, device=node.device), tiles)
        # Row i of the sorted rows has its place in the tiles of its node.
        order = torch.argsort(node, stable=True)
        first_tile, first_row = tiles.cumsum(0) - tiles, rows_per_node.cumsum(0) - rows_per_node
        place = torch.arange(len(node), device=node.device) - first_row[node[order]]
        place += first_tile[node[order]] * tile
        source = torch.zeros(len(node_of_tile) * tile, dtype=torch.int64, device=node.device)
        source[place] = rows[order]

        children = first_child.diff()
        width = int(children.max())
        offsets = torch.arange(width, device=node.device)
        children_of_tile = (first_child[node_of_tile, None] + offsets).clamp(max=len(centroids) - 1)
        tiled = vectors[source].view(len(node_of_tile), tile, -1)
        cosines = torch.bmm(tiled, centroids[children_of_tile].transpose(1, 2))
        cosines.masked_fill_((offsets >= children[node_of_tile, None])[:, None, :], NOWHERE)
        child = node.new_empty((len(node), count))
        cosine = vectors.new_empty((len(node), count))
        for rank in range(count):
            best, nearest = cosines.max(dim=2, keepdim=True)
            child[order, rank] = first_child[node[order]] + nearest.view(-1)[place]
            cosine[order, rank] = best.view(-1)[place]
            cosines.scatter_(2, nearest, NOWHERE)
        return child, cosine


def as_float32(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """A copy in float32; by torch, which converts float16 ten times as fast as numpy."""
    import torch

    converted: NDArray[np.float32] = torch.from_numpy(np.array(vectors)).float().numpy()
    return converted


def first_children(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 (nodes+1,): node i has the children [first[i], first[i+1]); `parents` is non-decreasing."""
    return np.searchsorted(parents, np.arange(parents[-1] + 2)).astype(np.int64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order: with more threads BLAS and OpenMP may take another, which shows in the last bits."""
    with _thread_pools().limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _thread_pools() -> Any:
    """Finding the loaded libraries takes longer than placing a part."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
