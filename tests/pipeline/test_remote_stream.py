"""The contract of the stream, from S3: with a cold and a warm cache, in process and with two workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pipeline import (
    Batch,
    BudgetError,
    Corpus,
    Mixture,
    MixtureStream,
    RepetitionBudget,
    open_corpus,
)
from pipeline.transfer.push import push
from tests.pipeline.remote_corpus import NUM_DOMAINS, write_small_corpus
from tests.servers.store_server import StoreServer

pytestmark = pytest.mark.usefixtures("quick_loaders")

STEPS, BATCH_SIZE = 48, 24
CHANGES = {0, 1, 7, 20, 21, 40}
PREFETCH = 2

Open = Callable[[], Corpus]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(write_small_corpus(tmp_path_factory.mktemp("local") / "corpus"))


@pytest.fixture
def address(s3: StoreServer, local: Corpus, new_prefix: str) -> str:
    address = s3.address(new_prefix)
    push(local.path, address)
    return address


@pytest.fixture(params=["cold", "warm", "small"])
def remote(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Open:
    """Opens the corpus in S3: with an empty cache every time, a full one, or one of a third of the data."""
    caches = (tmp_path / f"cache-{number}" for number in itertools.count())
    if request.param == "cold":
        return lambda: open_corpus(address, cache=next(caches))
    cache = next(caches)
    corpus = open_corpus(address, cache=cache)
    if request.param == "small":
        room = corpus.grid.num_blocks // 3 * 4096  # a slot takes whole pages
        return lambda: open_corpus(address, cache=cache, cache_bytes=room)
    corpus.read(np.arange(corpus.num_samples))
    return lambda: open_corpus(address, cache=cache)


def mixture_at(corpus: Corpus, step: int) -> Mixture:
    weights = np.random.default_rng(step).dirichlet(np.full(NUM_DOMAINS, 0.5))
    return Mixture.from_weights(corpus.domains(level=1), weights + 1e-6)


def stream(corpus: Corpus, *, rank: int = 0, world_size: int = 1) -> MixtureStream:
    return MixtureStream(
        corpus,
        mixture_at(corpus, 0),
        batch_size=BATCH_SIZE,
        seed=5,
        rank=rank,
        world_size=world_size,
        budget=RepetitionBudget(max_passes=1.5, num_steps=STEPS),
        shuffle_bytes=16 * 1024,
    )


def batches(stream: MixtureStream, workers: int) -> Any:
    if not workers:
        return stream
    return iter(
        DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            multiprocessing_context="forkserver",
        )
    )


def run(
    stream: MixtureStream, workers: int, until: int, changes: dict[int, Mixture] | None = None
) -> tuple[list[Batch], dict[int, Mixture]]:
    """Go on to step `until`. Decides on new mixtures at CHANGES, or puts given ones in force.

    Returns the batches, and the mixtures by the step from which they held.
    """
    held: dict[int, Mixture] = {}
    got: list[Batch] = []
    source = batches(stream, workers)
    while stream.step < until:
        if changes is None and stream.step in CHANGES:
            mixture = mixture_at(stream.corpus, stream.step)
            held[stream.set_mixture(mixture)] = mixture
        elif changes is not None and stream.step in changes:
            stream.set_mixture(changes[stream.step])
        got.append(next(source))
    return got, held


def tokens(batches: list[Batch]) -> list[list[int]]:
    return [batch.tokens.ravel().tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_from_s3_is_the_stream_from_disk(
    local: Corpus, remote: Open, workers: int
) -> None:
    started = stream(remote())
    got, held = run(started, workers, STEPS)
    assert sorted(held) == [step + workers * PREFETCH for step in sorted(CHANGES)]
    expected, _ = run(stream(local), 0, STEPS, changes=held)
    assert tokens(got) == tokens(expected)
    assert (started.samples_drawn <= np.floor(1.5 * started.view.sizes)).all()
    assert started.statistics.bytes_used >= STEPS * BATCH_SIZE * 16
    used = started.statistics.bytes_used
    with pytest.raises(BudgetError):
        next(started)  # the workers are let go, and what they read still counts
    assert started.statistics.bytes_used >= used
    assert 0.0 <= started.statistics.hit_rate <= 1.0


@pytest.mark.parametrize(("workers", "then"), [(0, 2), (2, 0)])
def test_a_state_resumes_from_s3_at_any_step_and_with_other_workers(
    remote: Open, workers: int, then: int
) -> None:
    for received in (1, 9, 22):
        first = stream(remote())
        run(first, workers, received)
        state = first.state_dict()
        expected, _ = run(first, 0, received + 10, changes={})
        resumed = stream(remote())
        resumed.load_state_dict(state)
        got, _ = run(resumed, then, received + 10, changes={})
        assert tokens(got) == tokens(expected)


def test_ranks_change_their_number_and_the_global_sequence_stays(
    local: Corpus, remote: Open
) -> None:
    expected, held = run(stream(local), 0, 20)
    four = [stream(remote(), rank=rank, world_size=4) for rank in range(4)]
    first_half = [run(each, 0, 10)[0] for each in four]
    state = four[2].state_dict()
    second_half = []
    for rank in range(2):
        each = stream(remote(), rank=rank, world_size=2)
        each.load_state_dict(state)
        second_half.append(run(each, 0, 20, changes=held)[0])
    for step in range(20):
        parts = [part[step] for part in first_half] if step < 10 else []
        parts = parts or [part[step - 10] for part in second_half]
        joined = np.concatenate([part.tokens for part in parts])
        assert np.array_equal(joined, expected[step].tokens)


def test_a_cache_that_does_not_hold_what_the_domains_have_in_hand_is_warned_of(
    address: str, tmp_path: Path
) -> None:
    corpus = open_corpus(address, cache=tmp_path / "cache", cache_bytes=32 * 1024)
    with pytest.warns(UserWarning, match="blocks will be fetched many times"):
        MixtureStream(corpus, Mixture.natural(corpus.domains(k=6)), batch_size=8)
