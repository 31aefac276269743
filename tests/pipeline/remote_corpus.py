"""A small corpus, also behind an address, for tests of what lies between."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import Corpus, Mixture, MixtureStream
from pipeline.corpus.manifest import MANIFEST_FILE
from pipeline.stores.object_store import ObjectStore
from tests.corpora import write_corpus

SAMPLE_BYTES = 16
BLOCK_BYTES = 1024
NUM_DOMAINS = 6
BATCH_SIZE = 24


def write_small_corpus(folder: Path) -> Path:
    """4,000 numbered samples in 24 leaves; 63 blocks of 64 samples in 5 shards."""
    sizes = np.random.default_rng(5).multinomial(4000, np.random.default_rng(6).dirichlet([1] * 24))
    return write_corpus(
        folder,
        sizes.tolist(),
        levels=(1, NUM_DOMAINS, 24),
        tokens_per_sample=SAMPLE_BYTES // 2,
        block_bytes=BLOCK_BYTES,
        shard_bytes=20_000,
    )


def upload(folder: Path, address: str) -> str:
    """Copy a folder, the manifest of a corpus last; returns the address."""
    store = ObjectStore(address)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == MANIFEST_FILE):
        store.write(path.relative_to(folder).as_posix(), path)
    return address


def start_stream(corpus: Corpus) -> MixtureStream:
    """The stream that these tests compare, in the same state everywhere."""
    return MixtureStream(
        corpus,
        Mixture.uniform(corpus.domains(level=1)),
        batch_size=BATCH_SIZE,
        seed=3,
        shuffle_bytes=NUM_DOMAINS * BLOCK_BYTES,
    )


def samples(stream: MixtureStream, steps: int) -> list[NDArray[np.uint16]]:
    """The samples of the next batches, with a change of mixture half-way."""
    taken = [batch.tokens for batch in itertools.islice(stream, steps // 2)]
    weights = np.arange(1.0, NUM_DOMAINS + 1)
    stream.set_mixture(Mixture(stream.view, weights / weights.sum()))
    return taken + [batch.tokens for batch in itertools.islice(stream, steps - steps // 2)]
