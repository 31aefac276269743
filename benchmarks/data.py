"""What all loaders of a run read: the same samples, the same domains, the same mixture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH, SAMPLE_TOKENS = 32, 512
FEWEST_IN_DOMAIN = 2
"""Hugging Face's loader gives each worker a part of each domain."""


@dataclass(frozen=True)
class Data:
    """A folder with a corpus of k domains, the same samples as one flat array, and a mixture."""

    folder: Path

    @property
    def corpus(self) -> Path:
        """The corpus folder; its leaves are the domains."""
        return self.folder / "corpus"

    @cached_property
    def flat(self) -> NDArray[np.uint16]:
        """All samples, memory-mapped: (samples, SAMPLE_TOKENS)."""
        return np.load(self.folder / "flat.npy", mmap_mode="r")

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Domain i owns the samples offsets[i] to offsets[i + 1]: (k + 1,)."""
        return np.load(self.folder / "offsets.npy")

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """The mixture, drawn from a Dirichlet distribution: (k,), all positive, sums to 1."""
        return np.load(self.folder / "weights.npy")

    @property
    def k(self) -> int:
        """Number of domains."""
        return len(self.weights)

    def domain(self, number: int) -> NDArray[np.uint16]:
        """The samples of one domain, memory-mapped."""
        return self.flat[self.offsets[number] : self.offsets[number + 1]]


def write_data(folder: Path, k: int, samples: int) -> Data:
    """Domains of uneven sizes, `samples` in all or two for each domain if that is more."""
    from tests.corpora import write_corpus

    rng = np.random.default_rng(0)
    extra = max(samples - FEWEST_IN_DOMAIN * k, k // 4)
    sizes = FEWEST_IN_DOMAIN + rng.multinomial(extra, rng.dirichlet(np.ones(k)))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tokens = rng.integers(0, 2**16, (int(offsets[-1]), SAMPLE_TOKENS), dtype=np.uint16)
    np.save(folder / "flat.npy", tokens)
    np.save(folder / "offsets.npy", offsets)
    weights = np.maximum(rng.dirichlet(np.ones(k)), 1e-12)
    np.save(folder / "weights.npy", weights / weights.sum())
    write_corpus(
        folder / "corpus",
        sizes.tolist(),
        levels=(1, k),
        split_order=list(range(1, k)),
        tokens=lambda leaf_of_sample: tokens,
        tokens_per_sample=SAMPLE_TOKENS,
    )
    return Data(folder)
