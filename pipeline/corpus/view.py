"""Views: the same physical corpus at any granularity, as contiguous ranges of leaves.

The tree is one array. `split_order` lists the interior leaf boundaries in the order in which they
divide the corpus from the root down; the first k-1 of them are the k domains. Levels of the tree are
prefixes like any other, so a level is a k with a name, and any two views are nested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorpusError
from pipeline.storage.ranges import DomainRanges


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class View:
    """The corpus cut into k domains. Equal to another view of the same corpus with the same k."""

    corpus_fingerprint: str
    leaf_bounds: NDArray[np.int64]
    """Shape (k+1,): domain i holds the leaves leaf_bounds[i] .. leaf_bounds[i+1]-1."""
    ranges: DomainRanges
    """Where the samples of the domains lie: a range of positions per domain and segment."""

    @property
    def k(self) -> int:
        """Number of domains."""
        return self.ranges.k

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Samples per domain, shape (k,); a domain may be empty."""
        return self.ranges.sizes

    @property
    def num_samples(self) -> int:
        """Samples in all domains together."""
        return int(self.sizes.sum())

    def positions(self, domains: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position of the `index`-th sample of each of `domains`, from 0: of their broadcast shape.

        `index` runs up to the domain's size; samples of one leaf, and of one segment, are neighbours.
        """
        return self.ranges.positions(domains, index)

    def domains_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The domain that the sample at each of `positions` belongs to: of their shape."""
        return self.ranges.domains_at(positions)

    def sum_leaves(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum a per-leaf quantity of shape (num_leaves,) over each domain: shape (k,)."""
        if values.shape != (self.leaf_bounds[-1],):
            raise ValueError(
                f"per-leaf values have shape {values.shape}; this corpus has "
                f"{self.leaf_bounds[-1]} leaves, so the shape must be ({self.leaf_bounds[-1]},)."
            )
        return np.add.reduceat(values, self.leaf_bounds[:-1])

    def parents_in(self, coarser: View) -> NDArray[np.int64]:
        """For each domain, the index of the domain of `coarser` that contains it: shape (k,)."""
        return np.searchsorted(coarser.leaf_bounds, self.leaf_bounds[:-1], side="right") - 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, View):
            return NotImplemented
        return (self.corpus_fingerprint, self.k) == (other.corpus_fingerprint, other.k)

    def __hash__(self) -> int:
        return hash((self.corpus_fingerprint, self.k))

    def __repr__(self) -> str:
        return f"View(k={self.k}, corpus={self.corpus_fingerprint[:12]})"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DomainTree:
    """The cluster tree of a corpus: where leaves lie, and in which order boundaries appear."""

    corpus_fingerprint: str
    levels: tuple[int, ...]
    """Number of domains per level, from the root (1) to the leaves."""
    leaves: DomainRanges
    """Where the samples of each leaf lie."""
    split_order: NDArray[np.int64]
    """Shape (num_leaves-1,): interior leaf boundaries, from the root's first split down."""

    def __post_init__(self) -> None:
        leaves = self.num_leaves
        edges = self.leaves.bounds.ravel()
        if edges[0] != 0 or (np.diff(edges) < 0).any():
            raise CorpusError(
                "the tree's leaf offsets do not rise from 0: the corpus is damaged; fetch it again."
            )
        if not np.array_equal(np.sort(self.split_order), np.arange(1, leaves)):
            raise CorpusError(
                f"the tree's split order is no permutation of the {leaves - 1} interior boundaries of "
                f"{leaves} leaves: the corpus is damaged; fetch it again."
            )
        if (
            self.levels[0] != 1
            or self.levels[-1] != leaves
            or sorted(self.levels) != [*self.levels]
        ):
            raise CorpusError(
                f"the tree's levels are {self.levels}; they must rise from 1 to the number of leaves, "
                f"{leaves}: the corpus is damaged; fetch it again."
            )

    @property
    def num_leaves(self) -> int:
        """Number of leaves: the finest granularity."""
        return self.leaves.k

    def view(self, *, level: int | None = None, k: int | None = None) -> View:
        """The corpus as the domains of one `level`, or as any number `k` of domains.

        Level 0 is the root, level 1 its children, the last level the leaves. Raises `CorpusError`
        when neither or both are given, or when the tree has no such level or k.
        """
        if (level is None) == (k is None):
            raise CorpusError("a view needs either level=… or k=…, and not both.")
        if level is not None:
            if not 0 <= level < len(self.levels):
                raise CorpusError(
                    f"there is no level {level}: this tree has the levels 0 to {len(self.levels) - 1} "
                    f"with {', '.join(map(str, self.levels))} domains."
                )
            k = self.levels[level]
        assert k is not None
        if not hasattr(k, "__index__"):
            raise CorpusError(
                f"k={k!r} must be a whole number of domains, from 1 to {self.num_leaves}."
            )
        if not 1 <= k <= self.num_leaves:
            raise CorpusError(
                f"k={k} domains cannot be had: choose 1 to {self.num_leaves}, the number of leaves, or "
                "build a finer tree (`braidstream build --branching …`)."
            )
        interior = np.sort(self.split_order[: k - 1])
        leaf_bounds = np.concatenate([[0], interior, [self.num_leaves]]).astype(np.int64)
        leaf_bounds.setflags(write=False)
        return View(
            corpus_fingerprint=self.corpus_fingerprint,
            leaf_bounds=leaf_bounds,
            ranges=self.leaves.merged(leaf_bounds),
        )
