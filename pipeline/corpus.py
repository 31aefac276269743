"""A corpus folder, opened: its tree, its samples, its target sets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorpusError
from pipeline.manifest import Manifest
from pipeline.shards import MappedReader
from pipeline.storage import FetchStatistics, LocalStorage, read_array
from pipeline.view import DomainTree, View


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSet:
    """Examples of the task that the mixture is steered towards."""

    name: str
    train: NDArray[Any]
    """Shape (n, tokens_per_sample): what steering may look at."""
    test: NDArray[Any]
    """Shape (m, tokens_per_sample): for measuring only; m may be 0."""
    leaf_histogram: NDArray[np.float64]
    """Shape (num_leaves,): share of the train tokens whose nearest leaf this is; sums to 1."""


class Corpus:
    """A corpus folder. Open one with `open_corpus`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.manifest = Manifest.read(folder)
        self.fingerprint = self.manifest.fingerprint
        self.blocks: None = None
        self.statistics = FetchStatistics()
        self._storage = LocalStorage(folder)
        self._tree = DomainTree(
            corpus_fingerprint=self.fingerprint,
            levels=self.manifest.tree.levels,
            leaf_offsets=read_array(self._storage, self.manifest.tree.leaf_offsets),
            split_order=read_array(self._storage, self.manifest.tree.split_order),
        )
        assert self.manifest.sample is not None
        self.reader = MappedReader(self._storage, self.manifest.shards, self.manifest.sample)
        if self.num_samples != self._tree.leaf_offsets[-1]:
            raise CorpusError(
                f"the shards of {folder} hold {self.num_samples:,} samples, its tree "
                f"{self._tree.leaf_offsets[-1]:,}: the corpus is damaged; fetch or build it again."
            )

    @property
    def num_samples(self) -> int:
        """Samples in the shards."""
        return self.manifest.num_samples

    @property
    def num_leaves(self) -> int:
        """Domains at the finest granularity."""
        return self._tree.num_leaves

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of domains per level, from the root (1) to the leaves."""
        return self._tree.levels

    @property
    def tokens_per_sample(self) -> int:
        """Length of every sample, in tokens."""
        return self.manifest.sample.tokens_per_sample

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return self.manifest.tokenizer.vocab_size

    @property
    def separator_id(self) -> int:
        """Token that follows every document."""
        return self.manifest.tokenizer.separator_id

    @property
    def pad_id(self) -> int:
        """Token that fills the last block; losses mask it."""
        return self.manifest.tokenizer.pad_id

    def domains(self, *, level: int | None = None, k: int | None = None) -> View:
        """The corpus as the domains of one level, or as any number `k` of domains.

        Level 0 is the whole corpus, level 1 the first split, the last level the leaves. Raises
        `CorpusError` when there is no such level or k.
        """
        return self._tree.view(level=level, k=k)

    def read(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `positions` (n,), in that order: (n, tokens_per_sample) uint16 or uint32."""
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < self.num_samples):
            raise IndexError(
                f"positions run from {positions.min()} to {positions.max()}; this corpus has the "
                f"positions 0 to {self.num_samples - 1}."
            )
        return self.reader.copy(self.reader.handles(positions))

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the specialised target sets."""
        return tuple(target.name for target in self.manifest.targets)

    def target(self, name: str) -> TargetSet:
        """Load one target set; `CorpusError` lists the names when there is none of this name."""
        for entry in self.manifest.targets:
            if entry.name == name:
                train = read_array(self._storage, entry.train)
                test = read_array(self._storage, entry.test) if entry.test else train[:0]
                histogram = read_array(self._storage, entry.histogram)
                return TargetSet(name=name, train=train, test=test, leaf_histogram=histogram)
        have = ", ".join(self.target_names) or "none"
        raise CorpusError(
            f"this corpus has no target set {name!r}; it has: {have}. "
            f"Add one with `braidstream build … --target {name}=train.jsonl,test.jsonl`."
        )

    @cached_property
    def heldout(self) -> NDArray[Any]:
        """Generic validation blocks in natural proportions: (n, tokens_per_sample); n may be 0."""
        if self.manifest.heldout is None:
            dtype = np.dtype(self.manifest.sample.dtype)
            return np.empty((0, self.tokens_per_sample), dtype=dtype)
        return read_array(self._storage, self.manifest.heldout)

    def centroids(self, level: int) -> NDArray[np.float32]:
        """Unit-norm centroids of a level below the root: float32 (levels[level], dim)."""
        if not 1 <= level < len(self.levels):
            raise CorpusError(
                f"centroids exist for the levels 1 to {len(self.levels) - 1}, not {level}."
            )
        return read_array(self._storage, self.manifest.tree.centroids[level - 1])

    def __reduce__(self) -> tuple[Any, ...]:
        return open_corpus, (self.path,)

    def __repr__(self) -> str:
        levels = " → ".join(map(str, self.levels))
        return f"Corpus({str(self.path)!r}, samples={self.num_samples:,}, domains={levels})"


def open_corpus(path: str | os.PathLike[str]) -> Corpus:
    """Open a corpus folder; `CorpusError` says what is missing or damaged.

    Local and mounted folders for now; object storage is the next step (docs/stream.md).
    """
    if "://" in str(path):
        raise CorpusError(
            f"{str(path)!r} is an address; this version opens local and mounted folders. "
            "Copy the corpus to a local folder first."
        )
    return Corpus(Path(path))
