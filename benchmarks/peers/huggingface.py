"""Hugging Face datasets: interleave_datasets over slices of one memory-mapped Arrow dataset.

Iterable rather than map-style: its documentation calls that the faster one, and the map-style form builds the
whole list of indices ahead. https://huggingface.co/docs/datasets/about_mapstyle_vs_iterable
"""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.data import BATCH, SAMPLE_TOKENS, Data


def write(data: Data) -> None:
    """One Arrow dataset of all samples."""
    datasets.disable_progress_bars()
    tokens = datasets.List(datasets.Value("uint16"), length=SAMPLE_TOKENS)
    rows = ({"tokens": row} for row in data.flat)
    whole = datasets.Dataset.from_generator(
        lambda: rows,
        features=datasets.Features({"tokens": tokens}),
        cache_dir=str(data.folder / "huggingface-cache"),
        fingerprint="benchmark",
    )
    whole.save_to_disk(data.folder / "huggingface")


def batches(data: Data, workers: int) -> Iterator[torch.Tensor]:
    """Each domain repeats without end; with workers it has one shard for each."""
    whole = datasets.load_from_disk(data.folder / "huggingface").with_format("numpy")
    domains = [
        whole.select(range(start, end))
        .to_iterable_dataset(num_shards=max(workers, 1))
        .shuffle(seed=0, buffer_size=16)
        .repeat(None)
        for start, end in zip(data.offsets, data.offsets[1:], strict=False)
    ]
    mixed = datasets.interleave_datasets(domains, probabilities=data.weights.tolist(), seed=0)
    loader = DataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=stacked)
    return iter(loader)


def stacked(samples: list[dict[str, np.ndarray]]) -> torch.Tensor:
    """Samples to one tensor."""
    return torch.from_numpy(np.stack([sample["tokens"] for sample in samples]))
