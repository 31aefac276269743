"""A slow store, and a mixture that jumps to domains of which nothing has been fetched."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.data import BATCH
from pipeline import Mixture, MixtureStream, open_corpus
from pipeline.storage.cache_settings import CONNECTIONS

STEP_SECONDS = 0.005
WINDOW = 100
"""Batches whose rate must be back."""
RECOVERED = 0.9
"""Share of the rate before the jump that counts as back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Jump:
    """What a jump of the mixture cost."""

    rate_before: float
    """Batches per second, training steps included."""
    first_batch_seconds: float
    """From the jump to its first batch."""
    wait_seconds: float
    """Waited for batches between the jump and the recovery."""
    recovery_seconds: float
    """From the jump until batches come at the rate before it; infinite if they never do."""
    fetched: int
    """Bytes that came in that time."""
    fetch_seconds: float
    """What those take at least: every connection busy all the time."""


def jump(address: str, cache: Path, seconds: float, request_bytes_per_second: float) -> Jump:
    """Train `seconds` on the first half of the domains, then as long on the other half."""
    corpus = open_corpus(address, cache=cache)
    view = corpus.domains(k=corpus.num_leaves)
    first_half = np.arange(view.k) < view.k // 2
    batches = MixtureStream(corpus, Mixture.from_weights(view, first_half), batch_size=BATCH)
    before, _, _ = train(batches, seconds)
    rate_before = (WINDOW - 1) / (before[-1] - before[-WINDOW])
    fetched_before = corpus.statistics.bytes_fetched
    started = time.perf_counter()
    batches.set_mixture(Mixture.from_weights(view, ~first_half))
    arrivals, waits, fetched = train(batches, seconds)
    back = recovered(arrivals, rate_before)
    line_rate = CONNECTIONS * request_bytes_per_second
    bytes_by_then = int(fetched[back] - fetched_before)
    return Jump(
        rate_before=rate_before,
        first_batch_seconds=arrivals[0] - started,
        wait_seconds=float(waits[: back + 1].sum()),
        recovery_seconds=arrivals[back] - started if back + WINDOW < len(arrivals) else np.inf,
        fetched=bytes_by_then,
        fetch_seconds=bytes_by_then / line_rate,
    )


def train(batches: MixtureStream, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps for `seconds`: when each batch came, what was waited for it, bytes fetched by then."""
    arrivals, waits, fetched = [], [], []
    stop = time.perf_counter() + seconds
    while (asked := time.perf_counter()) < stop or len(arrivals) < WINDOW:
        next(batches)
        arrivals.append(time.perf_counter())
        waits.append(arrivals[-1] - asked)
        fetched.append(batches.corpus.statistics.bytes_fetched)
        time.sleep(STEP_SECONDS)
    return np.array(arrivals), np.array(waits), np.array(fetched)


def recovered(arrivals: np.ndarray, rate: float) -> int:
    """The first batch that starts a window at the old rate; the last one if none does."""
    taken = arrivals[WINDOW:] - arrivals[:-WINDOW]
    good = np.flatnonzero(WINDOW / taken >= RECOVERED * rate)
    return int(good[0]) if good.size else len(arrivals) - 1
