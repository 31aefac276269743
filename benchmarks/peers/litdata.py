"""litdata: CombinedStreamingDataset of one optimized folder of tokens per domain.

Its documented way for language models is `optimize` with a TokensLoader; that starts processes for every
folder, so the files are written here by the Cache that `optimize` itself writes with.
https://lightning.ai/docs/litdata/features/llm-pre-training
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader
from litdata.streaming.cache import Cache

from benchmarks.data import BATCH, SAMPLE_TOKENS, Data


def write(data: Data) -> None:
    """One folder of chunks per domain."""
    for number in range(data.k):
        cache = Cache(
            str(folder(data, number)), chunk_bytes="64MB", item_loader=TokensLoader(SAMPLE_TOKENS)
        )
        for row, tokens in enumerate(data.domain(number)):
            cache._add_item(row, torch.from_numpy(tokens.copy()))
        cache.done()
        cache.merge(num_workers=1)


def batches(data: Data, workers: int) -> Iterator[torch.Tensor]:
    """An epoch ends when the first domain is used up, often within a batch; then the next begins."""
    domains = [
        StreamingDataset(
            str(folder(data, number)), item_loader=TokensLoader(SAMPLE_TOKENS), shuffle=True
        )
        for number in range(data.k)
    ]
    mixed = CombinedStreamingDataset(domains, weights=data.weights.tolist(), iterate_over_all=False)
    while True:
        loader = StreamingDataLoader(mixed, batch_size=BATCH, num_workers=workers)
        yield from loader


def folder(data: Data, number: int) -> object:
    """The chunks of one domain."""
    return data.folder / "litdata" / str(number)
