"""Ours, by its public interface."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from benchmarks.data import BATCH, Data
from pipeline import Batch, Mixture, MixtureStream, open_corpus


def write(data: Data) -> None:
    """Reads the corpus."""


def batches(data: Data, workers: int) -> Iterator[NDArray[np.uint16]]:
    """The tokens of each batch."""
    return (batch.tokens for batch in loader(stream(data), workers))


def stream(data: Data) -> MixtureStream:
    """The corpus' leaves by the run's mixture."""
    corpus = open_corpus(data.corpus)
    mixture = Mixture.from_weights(corpus.domains(k=data.k), data.weights)
    return MixtureStream(corpus, mixture, batch_size=BATCH)


def loader(stream: MixtureStream, workers: int) -> Iterator[Batch]:
    """The stream itself, or worker processes in front of it."""
    if not workers:
        return stream
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, multiprocessing_context="forkserver"
    )
    return iter(loader)
