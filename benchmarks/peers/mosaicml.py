"""mosaicml-streaming: one Stream with a proportion per domain.

https://docs.mosaicml.com/projects/streaming/en/stable/dataset_configuration/mixing_data_sources.html
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from streaming import MDSWriter, Stream, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from benchmarks.data import BATCH, SAMPLE_TOKENS, Data

EPOCH = 1_000_000


def write(data: Data) -> None:
    """One MDS folder per domain."""
    for number in range(data.k):
        columns = {"tokens": f"ndarray:uint16:{SAMPLE_TOKENS}"}
        out = str(data.folder / "mosaicml" / str(number))
        with MDSWriter(out=out, columns=columns) as writer:
            for tokens in data.domain(number):
                writer.write({"tokens": tokens})


def batches(data: Data, workers: int) -> Iterator[torch.Tensor]:
    """Epochs of a million samples, one after the other."""
    clean_stale_shared_memory()
    streams = [
        Stream(local=str(data.folder / "mosaicml" / str(number)), proportion=float(weight))
        for number, weight in enumerate(data.weights)
    ]
    dataset = StreamingDataset(streams=streams, batch_size=BATCH, shuffle=True, epoch_size=EPOCH)
    while True:
        for batch in DataLoader(dataset, batch_size=BATCH, num_workers=workers, drop_last=True):
            yield batch["tokens"]
