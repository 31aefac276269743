"""webdataset: RandomMix of one resampled tar per domain.

`resampled=True` is its documented way to endless data, with and without workers; with one tar per domain
there is nothing else to split between them. https://webdataset.github.io/webdataset
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray

from benchmarks.data import BATCH, Data

SHUFFLE_BUFFER = 16
OTHER_FILES = 256


def write(data: Data) -> None:
    """One tar per domain."""
    (data.folder / "webdataset").mkdir()
    for number in range(data.k):
        with webdataset.TarWriter(str(path(data, number))) as writer:
            for row, tokens in enumerate(data.domain(number)):
                writer.write({"__key__": f"{row:08d}", "bin": tokens.tobytes()})


def batches(data: Data, workers: int) -> Iterator[torch.Tensor]:
    """Raw bytes to arrays, collated to tensors."""
    allow_open_files(data.k)
    domains = [
        webdataset.WebDataset(str(path(data, number)), resampled=True, shardshuffle=False)
        .shuffle(SHUFFLE_BUFFER)
        .map(decoded)
        for number in range(data.k)
    ]
    mixed = webdataset.RandomMix(domains, probs=data.weights.tolist())
    batched = webdataset.DataPipeline(mixed, webdataset.batched(BATCH, collation_fn=np.stack))
    return iter(webdataset.WebLoader(batched, batch_size=None, num_workers=workers))


def decoded(sample: dict[str, bytes]) -> NDArray[np.uint16]:
    """The tokens of a sample."""
    return np.frombuffer(sample["bin"], dtype=np.uint16)


def path(data: Data, number: int) -> object:
    """The tar of one domain."""
    return data.folder / "webdataset" / f"{number:06d}.tar"


def allow_open_files(count: int) -> None:
    """Every domain's tar stays open, so that many files must be allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + OTHER_FILES), hard))
