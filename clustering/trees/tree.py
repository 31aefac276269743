"""The cluster tree: k-means per level on unit vectors, siblings in the order of their dendrogram.

Domains are numbered so that the children of a parent, and so the leaves of every domain of every level,
are contiguous. New vectors (target sets) go down the tree exactly as the documents did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.trees.descent import NumpyDescent


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


def leaf_bounds_per_level(parents: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Leaf bounds of every level, root included, from the parents of the levels below it."""
    bounds = [np.arange(len(parents[-1]) + 1, dtype=np.int64)]
    for parents_of_level in reversed(parents):
        num_parents = int(parents_of_level[-1]) + 1
        first_child = np.searchsorted(parents_of_level, np.arange(num_parents + 1))
        bounds.append(bounds[-1][first_child])
    return bounds[::-1]
