"""The limit: fancy indexing into one flat memory map at positions that were drawn before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.data import BATCH, Data

PLANNED = 2048


def write(data: Data) -> None:
    """Reads the flat array."""


def batches(data: Data, workers: int) -> Iterator[NDArray[np.uint16]]:
    """With workers: the same copy in each, sent as it is."""
    if not workers:
        return iter(Gather(data))
    loader = DataLoader(
        Gather(data),
        batch_size=None,
        collate_fn=as_it_is,  # else every array becomes a tensor in a file descriptor of its own
        num_workers=workers,
        multiprocessing_context="forkserver",
    )
    return iter(loader)


def as_it_is(batch: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """No conversion."""
    return batch


class Gather(IterableDataset):
    """Draws many batches' positions at once, so that the copy is all that is left per batch."""

    def __init__(self, data: Data) -> None:
        self.data = Data(data.folder)  # without its memory maps: workers open their own

    def __iter__(self) -> Iterator[NDArray[np.uint16]]:
        rng = np.random.default_rng()
        flat, offsets, cumulative = self.data.flat, self.data.offsets, self.data.weights.cumsum()
        while True:
            domains = np.searchsorted(cumulative, rng.random((PLANNED, BATCH)) * cumulative[-1])
            sizes = offsets[domains + 1] - offsets[domains]
            for positions in offsets[domains] + (rng.random(domains.shape) * sizes).astype(int):
                yield flat[positions]
