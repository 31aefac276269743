"""The loaders that are measured, one module each, behind one protocol.

A module is imported only in the process that measures it, and before the clock starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data import Data

PEERS = {
    "gather": "memory-mapped gather (the limit)",
    "braidstream": "braidstream",
    "torchdata": "torchdata.nodes",
    "grain": "grain",
    "mosaicml": "mosaicml-streaming",
    "webdataset": "webdataset",
    "litdata": "litdata",
    "huggingface": "Hugging Face datasets",
}
"""Module -> name in the tables."""


class Peer(Protocol):
    """What each module of this package offers."""

    def write(self, data: Data) -> None:
        """Write the files that the loader needs beside the data; nothing where it reads them as they are."""

    def batches(self, data: Data, workers: int) -> Iterator[NDArray[np.uint16] | torch.Tensor]:
        """Batches (BATCH, SAMPLE_TOKENS) without end, in this process or from worker processes.

        A batch may be shorter where the loader cannot help it.
        """


def peer(name: str) -> Peer:
    """The module of one loader."""
    return cast(Peer, import_module(f"benchmarks.peers.{name}"))
