"""grain: MapDataset.mix of one repeated source per domain over the flat memory map.

Without its shuffle, to its advantage: that takes 0.7 ms a sample where a domain is small.

https://google-grain.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Iterator

import grain
import numpy as np
from numpy.typing import NDArray

from benchmarks.data import BATCH, Data


def write(data: Data) -> None:
    """Reads the flat array."""


def batches(data: Data, workers: int) -> Iterator[NDArray[np.uint16]]:
    """Threads only where there are workers: for a copy this small they cost more than they bring."""
    domains = [
        grain.MapDataset.source(Domain(data.folder, number)).repeat() for number in range(data.k)
    ]
    mixed = grain.MapDataset.mix(domains, weights=data.weights.tolist()).batch(BATCH)
    loader = mixed.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    if workers:
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(loader)


class Domain:
    """A random-access source; pickles as its folder and number, so that workers open their own map."""

    flats: dict[object, NDArray[np.uint16]] = {}  # noqa: RUF012 - one map per process is the point

    def __init__(self, folder: object, number: int) -> None:
        self.folder, self.number = folder, number
        data = Data(folder)
        self.start, self.end = data.offsets[number], data.offsets[number + 1]

    def __len__(self) -> int:
        return int(self.end - self.start)

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        if self.folder not in self.flats:
            self.flats[self.folder] = Data(self.folder).flat
        return self.flats[self.folder][self.start + index]
