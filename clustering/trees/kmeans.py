"""k-means of the nodes of one level: scikit-learn on the CPU, plain torch on a GPU.

Both give unit centroids, and both end with the same balancing steps (kmeans_groups.py).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.trees.descent import as_float32
from pipeline.cores import usable_cores

FULL_BATCH_ROWS = 2**18
"""Above this many rows a node is clustered in mini-batches."""
MAX_STEPS = 25
START_ROWS_PER_CHILD = 16
"""k-means++ chooses the start among at most this many rows per child, while Lloyd's steps see all. Among all
of them it took two thirds of the time, to no better end (docs/log.md)."""
GROUP_NUMBERS = 2**28
"""Numbers of one batch of groups on a GPU: 1 GiB of vectors, and about as much again for their clusters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node of the tree that is about to be split."""

    rows: NDArray[np.int64]
    """int64 (n,): the vectors that its children are fitted on."""
    children: int
    """2 <= children <= n."""
    limit: int
    """Rows that a child may have."""
    seed: int


class KMeans(Protocol):
    """Finds the children of nodes."""

    def __call__(
        self, vectors: NDArray[np.floating[Any]], nodes: Sequence[Node]
    ) -> list[NDArray[np.float32]]:
        """Centroids of each node's children, float32 (children, dim), unit norm; vectors are (n, dim)."""


def choose_kmeans(device: str) -> KMeans:
    """What clusters on this device."""
    return TorchKMeans(device) if device.startswith("cuda") else SklearnKMeans()


@dataclass(frozen=True, slots=True)
class SklearnKMeans:
    """The reference: `sklearn.cluster.KMeans`, a few nodes side by side, each in one thread.

    One thread per node, because the order in which threads add up would show in the last bits.
    """

    def __call__(
        self, vectors: NDArray[np.floating[Any]], nodes: Sequence[Node]
    ) -> list[NDArray[np.float32]]:
        """See `KMeans`."""
        import torch
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        importlib.import_module(
            "sklearn.cluster"
        )  # only the pools of loaded libraries can be limited
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        workers = max(1, min(usable_cores(), len(nodes)))
        pool = ThreadPoolExecutor(workers, initializer=_one_openmp_thread)
        try:
            # The limit of BLAS holds for the process; to set it in each thread would lift it for the others.
            with threadpool_limits(limits=1):
                return list(pool.map(lambda node: _fit_node(vectors, node), nodes))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _one_openmp_thread() -> None:
    """OpenMP's limit belongs to the thread that sets it."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="openmp")


def _fit_node(vectors: NDArray[np.floating[Any]], node: Node) -> NDArray[np.float32]:
    import torch
    from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    from clustering.trees.kmeans_groups import Groups, balance_groups

    rows = as_float32(vectors[node.rows])
    start, _ = kmeans_plusplus(_some(rows, node), node.children, random_state=node.seed)
    if len(rows) <= FULL_BATCH_ROWS:
        kmeans = KMeans(node.children, init=start, n_init=1, max_iter=MAX_STEPS)
    else:
        kmeans = MiniBatchKMeans(
            node.children, init=start, n_init=1, batch_size=16_384, random_state=node.seed
        )
    with warnings.catch_warnings():
        # Fewer distinct vectors than children: the empty children are dropped, nothing to warn about.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans.fit(rows)
        groups = Groups(
            torch.from_numpy(rows)[None], torch.tensor([len(rows)]), torch.tensor([node.children])
        )
        found = torch.from_numpy(unit(kmeans.cluster_centers_))[None]
        balanced = balance_groups(groups, found, torch.tensor([node.limit]), seed=node.seed)
    return balanced[0].numpy()


def _some(rows: NDArray[np.float32], node: Node) -> NDArray[np.float32]:
    most = START_ROWS_PER_CHILD * node.children
    if len(rows) <= most:
        return rows
    return rows[np.random.default_rng(node.seed).choice(len(rows), most, replace=False)]


@dataclass(frozen=True, slots=True)
class TorchKMeans:
    """Many nodes at once on a device of torch."""

    device: str

    def __call__(
        self, vectors: NDArray[np.floating[Any]], nodes: Sequence[Node]
    ) -> list[NDArray[np.float32]]:
        """See `KMeans`."""
        import torch

        from clustering.trees.kmeans_groups import Groups, balance_groups, fit_groups

        centroids: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(nodes)
        for batch in _batches(nodes, vectors.shape[1]):
            group = [nodes[number] for number in batch]
            padded = np.zeros(
                (len(group), max(len(node.rows) for node in group), vectors.shape[1]), np.float16
            )
            for rows, node in zip(padded, group, strict=True):
                rows[: len(node.rows)] = vectors[node.rows]
            groups = Groups(
                torch.from_numpy(padded).to(self.device).float(),
                torch.tensor([len(node.rows) for node in group], device=self.device),
                torch.tensor([node.children for node in group], device=self.device),
            )
            limits = torch.tensor([node.limit for node in group], device=self.device)
            start = fit_groups(groups, seed=group[0].seed)
            found = balance_groups(groups, start, limits, seed=group[0].seed).cpu().numpy()
            for number, node, of_node in zip(batch, group, found, strict=True):
                centroids[number] = of_node[: node.children]
        return centroids


def _batches(nodes: Sequence[Node], dim: int) -> Iterator[list[int]]:
    """Numbers of nodes of like size, so that little of a batch is padding; each batch of bounded memory."""
    by_size = sorted(range(len(nodes)), key=lambda number: -len(nodes[number].rows))
    batch: list[int] = []
    for number in by_size:
        # The first of a batch has the most rows: all are padded to it.
        widest = len(nodes[batch[0] if batch else number].rows)
        if batch and (
            (len(batch) + 1) * widest * dim > GROUP_NUMBERS or 2 * len(nodes[number].rows) < widest
        ):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Vectors (n, dim) scaled to norm 1: float32."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled
