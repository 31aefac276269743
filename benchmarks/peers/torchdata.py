"""torchdata.nodes: MultiNodeWeightedSampler over one source of positions per domain.

Each batch of positions is one gather from the flat memory map, which is the fastest way to use it;
"workers" are threads, as its documentation advises where the work releases the GIL.
https://docs.pytorch.org/data/0.11/migrate_to_nodes_from_utils.html
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import RandomSampler
from torchdata.nodes import (
    Batcher,
    Loader,
    MultiNodeWeightedSampler,
    ParallelMapper,
    SamplerWrapper,
    StopCriteria,
)

from benchmarks.data import BATCH, Data

SNAPSHOTS_NEVER = 1_000_000
"""Its state copies that of every source; we take none, which is to its advantage."""


def write(data: Data) -> None:
    """Reads the flat array."""


def batches(data: Data, workers: int) -> Iterator[NDArray[np.uint16]]:
    """Positions by domain, batched, gathered."""
    flat = data.flat
    domains = [range(*bounds) for bounds in zip(data.offsets, data.offsets[1:], strict=False)]
    names = [str(number) for number in range(data.k)]
    sources = {
        name: SamplerWrapper(Shuffled(domain)) for name, domain in zip(names, domains, strict=True)
    }
    mixed = MultiNodeWeightedSampler(
        sources,
        dict(zip(names, data.weights.tolist(), strict=True)),
        stop_criteria=StopCriteria.CYCLE_FOREVER,
    )
    gathered = ParallelMapper(
        Batcher(mixed, BATCH),
        map_fn=lambda positions: flat[positions],
        num_workers=workers,
        method="thread",
        snapshot_frequency=SNAPSHOTS_NEVER,
    )
    return iter(Loader(gathered))


class Shuffled(RandomSampler):
    """The positions of one domain, in a new order each pass."""

    def __init__(self, positions: range) -> None:
        super().__init__(positions)
        self.first = positions.start

    def __iter__(self) -> Iterator[int]:
        return (self.first + position for position in super().__iter__())
