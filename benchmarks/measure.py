"""Measures one loader in a process of its own.

python -m benchmarks.measure write LOADER FOLDER
python -m benchmarks.measure rate LOADER FOLDER --workers 2 --seconds 3
python -m benchmarks.measure steering braidstream FOLDER --workers 2

The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import BATCH, SAMPLE_TOKENS, Data
from benchmarks.memory import PeakMemory
from benchmarks.peers import PEERS, peer

BATCHES_PER_LOOK = 16
"""Batches between two looks at the clock."""
CHANGES = 40


def main() -> None:
    """Print what was measured as one line of JSON, and end without waiting for worker processes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("write", "rate", "steering"))
    parser.add_argument("loader", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    data = Data(options.folder)
    if options.what == "write":
        peer(options.loader).write(data)
        result = {}
    elif options.what == "rate":
        result = rate(options.loader, data, options.workers, options.seconds)
    else:
        result = steering(data, options.workers)
    print(json.dumps(result), flush=True)
    os._exit(0)


def rate(name: str, data: Data, workers: int, seconds: float) -> dict[str, float]:
    """Samples per second after a warm-up, seconds to the first batch, peak memory.

    The clock of the first batch starts after the imports; memory counts above the import of torch, in all
    processes together.
    """
    memory = PeakMemory()
    loader = peer(name)
    started = time.perf_counter()
    batches = loader.batches(data, workers)
    first = next(batches)
    first_batch_seconds = time.perf_counter() - started
    count, tokens = np.shape(first)
    assert (count <= BATCH, tokens) == (True, SAMPLE_TOKENS), f"{name}: {count} x {tokens}"
    warm_until = time.perf_counter() + seconds / 3
    while time.perf_counter() < warm_until:
        next(batches)
    samples, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for _ in range(BATCHES_PER_LOOK):
            samples += len(next(batches))
    return {
        "samples_per_second": samples / elapsed,
        "first_batch_seconds": first_batch_seconds,
        "memory_mb": memory.stop() / 2**20,
    }


def steering(data: Data, workers: int) -> dict[str, float]:
    """Microseconds for a change of mixture, and how many batches of the old one still come after it."""
    from benchmarks.peers.braidstream import loader, stream
    from pipeline import Mixture

    steered = stream(data)
    batches = loader(steered, workers)
    largest = int(np.argmax(np.diff(data.offsets)))
    one_domain = np.zeros(data.k)
    one_domain[largest] = 1.0
    making, setting, delays = [], [], []
    for change in range(CHANGES):
        last = next(batches)
        to_one_domain = change % 2 == 1
        started = time.perf_counter()
        mixture = Mixture.from_weights(steered.view, one_domain if to_one_domain else data.weights)
        made = time.perf_counter()
        holds_from = steered.set_mixture(mixture)
        making.append(made - started)
        setting.append(time.perf_counter() - made)
        delays.append(holds_from - last.step - 1)
        for batch in batches:
            if batch.step >= holds_from:
                break
        if to_one_domain:
            assert (batch.domains == largest).all(), "the new mixture does not hold when promised"
    return {
        "set_mixture_us": 1e6 * float(np.median(setting)),
        "make_mixture_us": 1e6 * float(np.median(making)),
        "delay_batches": float(max(delays)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
