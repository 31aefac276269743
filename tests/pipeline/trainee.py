"""A training process for tests that kill it: it notes every batch it gets and saves its state after each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline import Batch, open_corpus
from tests.pipeline.remote_corpus import start_stream

CACHE_BYTES = 16 * 4096
"""A quarter of the small corpus, so that blocks are fetched, and evicted, all the time."""


def note(batch: Batch) -> str:
    """Which batch this is, and what is in it."""
    return f"{batch.step} {hashlib.sha256(batch.tokens).hexdigest()}\n"


def train(address: str, cache: Path, run: Path, workers: int, begun: Any, num_steps: int) -> None:
    """Continue the run in the folder `run` for `num_steps` batches; `begun` gets the workers' pids."""
    stream = start_stream(open_corpus(address, cache=cache, cache_bytes=CACHE_BYTES))
    state = run / "state.json"
    if state.exists():
        stream.load_state_dict(json.loads(state.read_text()))
    batches: Any = stream
    pids: list[int] = []
    if workers:
        from torch.utils.data import DataLoader

        loader = DataLoader(stream, None, num_workers=workers, multiprocessing_context="forkserver")
        batches = iter(loader)
        pids = [worker.pid for worker in batches._workers]
    with (run / "log").open("a") as log:
        for count in range(num_steps):
            log.write(note(next(batches)))
            log.flush()
            partial = run / "state.partial"
            partial.write_text(json.dumps(stream.state_dict()))
            partial.replace(state)
            if count == 0:
                begun.put(pids)
