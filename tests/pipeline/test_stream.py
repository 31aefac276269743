from __future__ import annotations

import gc
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from pipeline import (
    Batch,
    Corpus,
    Mixture,
    MixtureError,
    MixtureStream,
    RepetitionBudget,
    StateError,
    open_corpus,
)
from pipeline.stream.sampler import keep_within
from tests.corpora import position_of, write_corpus

STEPS = 200
CHANGES = {0, 1, 7, 8, 50, 51, 52, 120, 199}


def mixture_at(corpus: Corpus, k: int, step: int) -> Mixture:
    """A different random mixture for every step, the same one whenever it is asked for."""
    view = corpus.domains(k=k)
    weights = np.random.default_rng(step).dirichlet(np.full(k, 0.3))
    return Mixture.from_weights(view, (weights + 1e-6) * (view.sizes > 0))


def run(stream: MixtureStream, until: int) -> list[Batch]:
    """Draw up to step `until`, changing the mixture on the way at the steps in CHANGES."""
    batches = []
    while stream.step < until:
        if stream.step in CHANGES:
            stream.set_mixture(mixture_at(stream.corpus, stream.view.k, stream.step))
        batches.append(next(stream))
    return batches


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.step == b.step
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.domains, b.domains)
        assert np.array_equal(a.tokens, b.tokens)


def make(corpus: Corpus, k: int, budget: bool, **options: int) -> MixtureStream:
    return MixtureStream(
        corpus,
        Mixture.natural(corpus.domains(k=k)),
        batch_size=8,
        budget=RepetitionBudget(max_passes=6, num_steps=STEPS) if budget else None,
        **options,
    )


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("k", [1, 6, 24])
def test_resume_at_every_step_gives_the_identical_tail(
    numbered_corpus: Corpus, k: int, budget: bool
) -> None:
    whole = make(numbered_corpus, k, budget)
    states, batches = [], []
    for step in range(STEPS):
        states.append(json.dumps(whole.state_dict()))
        batches += run(whole, step + 1)
    for step, state in enumerate(states):
        resumed = make(numbered_corpus, k, budget)
        resumed.load_state_dict(json.loads(state))
        assert resumed.step == step
        tail = min(STEPS, step + 12) if step % 40 else STEPS
        assert_same(run(resumed, tail), batches[step:tail])


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("world_size", [2, 4])
def test_any_world_size_gives_the_same_global_sequence(
    numbered_corpus: Corpus, world_size: int, budget: bool
) -> None:
    alone = run(make(numbered_corpus, 24, budget), STEPS)
    ranks = [
        run(make(numbered_corpus, 24, budget, rank=rank, world_size=world_size), STEPS)
        for rank in range(world_size)
    ]
    for step, batch in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert all(len(part.positions) == 8 // world_size for part in parts)
        assert np.array_equal(np.concatenate([part.positions for part in parts]), batch.positions)
        assert np.array_equal(np.concatenate([part.tokens for part in parts]), batch.tokens)


def test_a_state_saved_on_four_ranks_continues_on_two(numbered_corpus: Corpus) -> None:
    alone = run(make(numbered_corpus, 6, True), STEPS)
    on_four = make(numbered_corpus, 6, True, rank=3, world_size=4)
    run(on_four, 100)
    parts = []
    for rank in range(2):
        on_two = make(numbered_corpus, 6, True, rank=rank, world_size=2)
        on_two.load_state_dict(on_four.state_dict())
        parts.append(run(on_two, STEPS))
    for step in range(100, STEPS):
        halves = [part[step - 100].positions for part in parts]
        assert np.array_equal(np.concatenate(halves), alone[step].positions)


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2**63))
def test_a_new_mixture_shows_in_the_very_next_batch(
    numbered_corpus: Corpus, data: st.DataObject, seed: int
) -> None:
    view = numbered_corpus.domains(k=data.draw(st.sampled_from([2, 6, 24])))
    occupied = np.flatnonzero(view.sizes)
    stream = MixtureStream(numbered_corpus, Mixture.natural(view), batch_size=8, seed=seed)
    for _ in range(data.draw(st.integers(1, 6))):
        for _ in range(data.draw(st.integers(0, 20))):
            next(stream)
        only = int(data.draw(st.sampled_from(occupied.tolist())))
        step = stream.set_mixture(Mixture.from_weights(view, np.eye(view.k)[only]))
        batch = next(stream)
        assert batch.step == step
        assert (batch.domains == only).all()
        assert (view.domains_at(batch.positions) == only).all()


@pytest.mark.parametrize("k", [2, 6, 24])
def test_realised_shares_match_the_mixture(numbered_corpus: Corpus, k: int) -> None:
    mixture = mixture_at(numbered_corpus, k, step=3)
    stream = MixtureStream(numbered_corpus, mixture, batch_size=16)
    for _ in range(4000):
        batch = next(stream)
        counts = np.bincount(batch.domains, minlength=k)
        assert (np.abs(counts - 16 * mixture.probabilities) < 1.0 + 1e-9).all()
    drawn, expected = stream.samples_drawn, mixture.probabilities * 16 * 4000
    likely = expected >= 5
    rest_drawn, rest_expected = drawn[~likely].sum(), expected[~likely].sum()
    observed = np.append(drawn[likely], rest_drawn) if rest_expected >= 5 else drawn[likely]
    wanted = np.append(expected[likely], rest_expected) if rest_expected >= 5 else expected[likely]
    assert chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3


def test_ranks_see_fair_slices(numbered_corpus: Corpus) -> None:
    """The order inside a batch is random: a rank's share of a domain is what the mixture says."""
    view = numbered_corpus.domains(k=2)
    mixture = Mixture.from_weights(view, [0.25, 0.75])
    stream = MixtureStream(numbered_corpus, mixture, batch_size=8, rank=1, world_size=4)
    drawn = np.bincount(np.concatenate([next(stream).domains for _ in range(4000)]), minlength=2)
    assert chisquare(drawn, mixture.probabilities * drawn.sum()).pvalue > 1e-3


def test_every_pass_over_a_domain_holds_each_sample_once_in_an_order_of_its_own(
    numbered_corpus: Corpus,
) -> None:
    view = numbered_corpus.domains(k=6)
    stream = MixtureStream(numbered_corpus, Mixture.uniform(view), batch_size=8)
    order: defaultdict[int, list[int]] = defaultdict(list)
    for batch in run(stream, 600):
        for domain, position in zip(batch.domains, batch.positions, strict=True):
            order[int(domain)].append(int(position))
    for domain, positions in order.items():
        size = int(view.sizes[domain])
        passes = [
            positions[start : start + size] for start in range(0, len(positions) - size + 1, size)
        ]
        expected = sorted(view.positions(np.array(domain), np.arange(size)))
        assert all(sorted(one) == expected for one in passes)
        if size > 8 and len(passes) > 1:
            assert passes[0] != passes[1]
        assert stream.samples_drawn[domain] == len(positions)
        assert stream.passes[domain] == pytest.approx(len(positions) / size)


def test_tokens_are_those_of_the_positions_and_belong_to_the_caller(
    numbered_corpus: Corpus,
) -> None:
    stream = MixtureStream(
        numbered_corpus, Mixture.natural(numbered_corpus.domains(level=2)), batch_size=32
    )
    first = next(stream)
    assert np.array_equal(position_of(first.tokens), first.positions)
    kept = first.tokens.copy()
    first.tokens[:] = 0
    assert np.array_equal(numbered_corpus.read(first.positions), kept)
    drawn = stream.samples_drawn
    first.domains[:] = first.positions[:] = 0
    assert np.array_equal(stream.samples_drawn, drawn)


def test_seeds_differ(numbered_corpus: Corpus) -> None:
    one, other = (run(make(numbered_corpus, 6, False, seed=seed), 5) for seed in (0, 1))
    assert any(
        not np.array_equal(a.positions, b.positions) for a, b in zip(one, other, strict=True)
    )


def test_a_state_of_something_else_is_refused_with_what_differs(
    numbered_corpus: Corpus,
) -> None:
    state = make(numbered_corpus, 6, False).state_dict()
    with pytest.raises(StateError, match="domains: saved 6, this stream 24"):
        make(numbered_corpus, 24, False).load_state_dict(state)
    with pytest.raises(StateError, match="corpus: saved 'other'"):
        make(numbered_corpus, 6, False).load_state_dict({**state, "corpus": "other"})
    with pytest.raises(StateError, match=r"seed: saved 0, this stream 5; budget: saved None"):
        make(numbered_corpus, 6, True, seed=5).load_state_dict(state)
    with pytest.raises(StateError, match="batch_size: saved 16, this stream 8"):
        make(numbered_corpus, 6, False).load_state_dict({**state, "batch_size": 16})
    with pytest.raises(StateError, match=f"shuffle_bytes: saved {2**30}, this stream 4096"):
        make(numbered_corpus, 6, False, shuffle_bytes=4096).load_state_dict(state)
    with pytest.raises(StateError, match="version: saved 99"):
        make(numbered_corpus, 6, False).load_state_dict({**state, "version": 99})


def test_numbers_of_numpy_are_as_good_as_others(numbered_corpus: Corpus) -> None:
    natural = Mixture.natural(numbered_corpus.domains(k=6))
    streams = [
        MixtureStream(
            numbered_corpus,
            natural,
            batch_size=kind(8),
            seed=kind(2**40 + 5),
            shuffle_bytes=number(2e3),
            budget=RepetitionBudget(max_passes=2, num_steps=kind(9)),
        )
        for kind, number in ((int, int), (np.int64, float))
    ]
    assert_same(*[[next(stream) for _ in range(9)] for stream in streams])
    plain, numpys = (json.dumps(stream.state_dict()) for stream in streams)
    assert plain == numpys


def test_settings_that_do_not_fit_are_refused(numbered_corpus: Corpus) -> None:
    natural = Mixture.natural(numbered_corpus.domains(k=6))
    with pytest.raises(ValueError, match="multiple of world_size=3"):
        MixtureStream(numbered_corpus, natural, batch_size=8, world_size=3)
    with pytest.raises(ValueError, match="multiple of world_size=0"):
        MixtureStream(numbered_corpus, natural, batch_size=8, world_size=0)
    with pytest.raises(ValueError, match=r"rank=2 must lie in 0\.\.1"):
        MixtureStream(numbered_corpus, natural, batch_size=8, rank=2, world_size=2)
    stream = MixtureStream(numbered_corpus, natural, batch_size=8)
    with pytest.raises(MixtureError, match=r"mixture\.to\(stream\.view\)"):
        stream.set_mixture(Mixture.natural(numbered_corpus.domains(k=7)))


def test_at_262144_domains_there_is_no_object_for_each(tmp_path: Path) -> None:
    k = 2**18
    sizes = np.bincount(np.random.default_rng(0).integers(0, k, 2000), minlength=k)
    folder = write_corpus(tmp_path / "corpus", sizes.tolist(), levels=(1, k))
    budget = RepetitionBudget(max_passes=2.5, num_steps=40)
    held: list[object] = []

    def begin(k: int) -> None:
        corpus = open_corpus(folder)
        mixture = Mixture.natural(corpus.domains(k=k))
        stream = MixtureStream(corpus, mixture, batch_size=64, budget=budget)
        held.extend([stream, next(stream), stream.effective_probabilities])
        stream.set_mixture(Mixture.uniform(stream.view))
        held.extend([next(stream), stream.samples_drawn, stream.passes, stream.state_dict()])

    begin(2)  # imports and caches are not for domains
    gc.collect()
    before = sys.getallocatedblocks()
    begin(k)
    gc.collect()
    assert sys.getallocatedblocks() - before < k // 100


@given(st.data())
def test_keep_within_moves_only_what_is_too_much(data: st.DataObject) -> None:
    domains: NDArray[np.int64] = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1)))
    room = np.array(data.draw(st.lists(st.integers(0, 9), min_size=5, max_size=5)))
    room[4] += max(0, len(domains) - room.sum())
    kept = keep_within(domains, room)
    assert (np.bincount(kept, minlength=5) <= room).all()
    moved = kept != domains
    assert moved.sum() == np.maximum(np.bincount(domains, minlength=5) - room, 0).sum()
