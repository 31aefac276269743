"""The stream behind a DataLoader with workers: the same batches, and everything known in the main process."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from pipeline import (
    Batch,
    BudgetError,
    Corpus,
    CorpusError,
    Mixture,
    MixtureStream,
    RepetitionBudget,
    StateError,
    open_corpus,
)
from tests.corpora import position_of
from tests.pipeline.test_stream import make, mixture_at

pytestmark = [
    pytest.mark.usefixtures("quick_loaders"),
    # Of torch, which is not ours to change.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.set_vital. is deprecated"),
]

WORKERS, PREFETCH = 2, 2
DELAY = WORKERS * PREFETCH


def loader(stream: MixtureStream, workers: int = WORKERS, context: str = "forkserver") -> Any:
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context=context if workers else None,
    )


def take(batches: Any, count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        a.step == b.step
        and np.array_equal(a.tokens, b.tokens)
        and np.array_equal(a.domains, b.domains)
        and np.array_equal(a.positions, b.positions)
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_workers_give_the_batches_that_one_process_gives(
    numbered_corpus: Corpus, context: str
) -> None:
    alone = take(make(numbered_corpus, 6, False), 30)
    assert same(take(loader(make(numbered_corpus, 6, False), context=context), 30), alone)


def test_a_new_mixture_holds_from_the_step_that_set_mixture_returns(
    numbered_corpus: Corpus,
) -> None:
    stream = make(numbered_corpus, 6, True)
    batches = iter(loader(stream))
    got, changes = [], {}
    for step in range(40):
        got.append(next(batches))
        assert stream.step == step + 1
        if step in (0, 5, 6, 20):
            holds_from = stream.set_mixture(mixture_at(numbered_corpus, 6, step))
            assert holds_from == step + 1 + DELAY
            changes[holds_from] = mixture_at(numbered_corpus, 6, step)
    alone = make(numbered_corpus, 6, True)
    expected = []
    for step in range(40):
        if step in changes:
            assert alone.set_mixture(changes[step]) == step
        expected.append(next(alone))
    assert same(got, expected)
    assert np.array_equal(stream.samples_drawn, alone.samples_drawn)
    assert stream.mixture == alone.mixture


def test_two_changes_between_two_batches_leave_the_later(numbered_corpus: Corpus) -> None:
    stream = make(numbered_corpus, 6, False)
    batches = iter(loader(stream))
    next(batches)
    first, second = (mixture_at(numbered_corpus, 6, n) for n in (1, 2))
    assert stream.set_mixture(first) == stream.set_mixture(second)
    take(batches, DELAY)
    assert stream.mixture == second


@pytest.mark.parametrize(("received", "workers"), [(1, 0), (6, 3), (17, 1)])
def test_a_state_is_that_of_the_last_batch_received_and_resumes_with_any_number_of_workers(
    numbered_corpus: Corpus, received: int, workers: int
) -> None:
    stream = make(numbered_corpus, 6, True)
    batches = iter(loader(stream))
    take(batches, received - 1)
    stream.set_mixture(
        mixture_at(numbered_corpus, 6, 3)
    )  # still on its way when the state is taken
    take(batches, 1)
    state = stream.state_dict()
    assert state["step"] == received
    expected = take(batches, 12)
    resumed = make(numbered_corpus, 6, True)
    resumed.load_state_dict(state)
    assert same(take(loader(resumed, workers), 12), expected)
    again = make(numbered_corpus, 6, True)
    again.load_state_dict(state)
    assert same(take(again, 12), expected)


def test_a_resumed_change_that_holds_later_gives_way_to_a_new_one(numbered_corpus: Corpus) -> None:
    first, second = (mixture_at(numbered_corpus, 6, n) for n in (1, 2))
    stream = make(numbered_corpus, 6, False)
    batches = iter(loader(stream, 3))
    next(batches)
    stream.set_mixture(first)
    state = stream.state_dict()  # first holds from step 7
    resumed, alone = make(numbered_corpus, 6, False), make(numbered_corpus, 6, False)
    for each in (resumed, alone):
        each.load_state_dict(state)
    batches = iter(loader(resumed, 1))
    got = take(batches, 1)
    holds_from = resumed.set_mixture(second)
    assert 2 < holds_from < 7
    got += take(batches, 12)
    expected = take(alone, holds_from - 1)
    alone.set_mixture(second)
    assert same(got, expected + take(alone, 14 - holds_from))
    assert np.array_equal(resumed.samples_drawn, alone.samples_drawn)


class FailAt:
    """A transform that refuses one sample."""

    def __init__(self, position: int) -> None:
        self.position = position

    def __call__(self, sample: NDArray[Any]) -> NDArray[Any]:
        if position_of(sample[None])[0] == self.position:
            raise ArithmeticError("a sample that cannot be used")
        return sample


def test_a_batch_that_fails_in_a_worker_is_not_counted(numbered_corpus: Corpus) -> None:
    expected = take(make(numbered_corpus, 6, False), 8)
    stream = make(numbered_corpus, 6, False)
    stream.transform = FailAt(int(expected[3].positions[0]))
    batches = iter(loader(stream))
    take(batches, 3)
    with pytest.raises(ArithmeticError, match="cannot be used"):
        next(batches)
    state = stream.state_dict()
    assert state["step"] == stream.step == 3
    with pytest.raises(ArithmeticError, match="cannot be used"):
        take(batches, 2 * WORKERS)  # that worker makes no other
    resumed = make(numbered_corpus, 6, False)
    resumed.load_state_dict(state)
    assert same(take(loader(resumed), 5), expected[3:])


def test_loaders_that_would_be_miscounted_are_refused(numbered_corpus: Corpus) -> None:
    for options in ({"batch_size": 2, "collate_fn": list}, {"batch_size": None, "in_order": False}):
        batches = DataLoader(
            make(numbered_corpus, 6, False),
            num_workers=WORKERS,
            multiprocessing_context="forkserver",
            **options,
        )
        with pytest.raises(StateError, match="batch_size=None"):
            iter(batches)


def test_a_change_that_holds_now_shows_before_the_next_batch(numbered_corpus: Corpus) -> None:
    stream = make(numbered_corpus, 6, False)
    batches = iter(loader(stream))
    next(batches)
    changed = mixture_at(numbered_corpus, 6, 1)
    holds_from = stream.set_mixture(changed)
    take(batches, holds_from - 1)
    resumed = make(numbered_corpus, 6, False)
    resumed.load_state_dict(stream.state_dict())
    assert resumed.step == holds_from
    assert resumed.mixture == changed


def test_the_state_outlives_the_loader_and_the_stream_goes_on_in_this_process(
    numbered_corpus: Corpus,
) -> None:
    alone = make(numbered_corpus, 6, False)
    expected = take(alone, 20)
    stream = make(numbered_corpus, 6, False)
    got = [batch for batch, _ in zip(loader(stream), range(7), strict=False)][:7]
    assert stream.step == 8  # zip took one more and threw it away
    got += [expected[7], *take(stream, 4)]
    got += take(loader(stream), 8)
    assert same(got, expected)


def test_a_second_epoch_of_persistent_workers_is_refused(numbered_corpus: Corpus) -> None:
    stream = make(numbered_corpus, 6, False)
    batches = DataLoader(
        stream,
        batch_size=None,
        num_workers=WORKERS,
        multiprocessing_context="forkserver",
        persistent_workers=True,
    )
    take(batches, 3)
    with pytest.raises(StateError, match="without persistent_workers"):
        iter(batches)
    assert stream.step == 3


def test_ranks_and_workers_together_serve_the_global_batch(numbered_corpus: Corpus) -> None:
    whole = take(make(numbered_corpus, 6, False), 6)
    parts = [
        take(loader(make(numbered_corpus, 6, False, rank=rank, world_size=2)), 6)
        for rank in range(2)
    ]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert np.array_equal(batch.tokens, np.concatenate([half.tokens for half in halves]))


def test_a_budget_ends_with_its_own_error_in_the_callers_thread(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=6)
    budget = RepetitionBudget(max_passes=4, num_steps=10)
    stream = MixtureStream(numbered_corpus, Mixture.natural(view), batch_size=8, budget=budget)
    batches = iter(loader(stream))
    take(batches, 10)
    assert stream.step == 10
    for _ in range(3):  # and again, never a silent end
        with pytest.raises(BudgetError, match="beyond the 10 steps"):
            next(batches)


def sum_of_tokens(sample: Any) -> int:
    return int(sample.astype(np.int64).sum())


def first_of_none(sample: NDArray[np.uint16]) -> int:
    empty: list[int] = []
    return next(iter(empty))


def test_a_transform_runs_in_the_workers(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=6)
    plain = MixtureStream(numbered_corpus, Mixture.natural(view), batch_size=8)
    summed = MixtureStream(
        numbered_corpus, Mixture.natural(view), batch_size=8, transform=sum_of_tokens
    )
    for batch, one in zip(take(loader(summed), 3), take(plain, 3), strict=True):
        assert batch.samples == [sum_of_tokens(tokens) for tokens in one.tokens]


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_transform_does_not_end_the_stream_by_a_stop_of_its_own(
    numbered_corpus: Corpus, workers: int
) -> None:
    view = numbered_corpus.domains(k=6)
    stream = MixtureStream(
        numbered_corpus, Mixture.natural(view), batch_size=8, transform=first_of_none
    )
    with pytest.raises(RuntimeError, match="StopIteration"):
        take(loader(stream, workers), 3)
    assert stream.step == 0


def test_a_worker_that_cannot_open_the_corpus_says_why(
    numbered_corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(numbered_corpus.path, tmp_path / "corpus")
    stream = make(open_corpus(tmp_path / "corpus"), 6, False)
    take(stream, 2)
    (tmp_path / "corpus").rename(tmp_path / "moved")
    with pytest.raises(CorpusError, match="is not a corpus"):
        next(iter(loader(stream)))
    assert stream.step == 2
    (tmp_path / "moved").rename(tmp_path / "corpus")
    assert take(loader(stream), 1)[0].step == 2


def test_a_forked_worker_says_what_to_do(numbered_corpus: Corpus) -> None:
    with pytest.raises(StateError, match='multiprocessing_context="forkserver"'):
        next(iter(loader(make(numbered_corpus, 6, False), context="fork")))


def test_a_worker_that_is_forked_after_others_were_started_says_so_too(
    numbered_corpus: Corpus,
) -> None:
    stream = make(numbered_corpus, 6, False)
    take(loader(stream), 3)
    with pytest.raises(StateError, match='multiprocessing_context="forkserver"'):
        next(iter(loader(stream, context="fork")))
    assert stream.step == 3


def test_a_stream_is_not_pickled_anywhere_else(numbered_corpus: Corpus) -> None:
    import pickle

    with pytest.raises(StateError, match=r"save stream\.state_dict\(\)"):
        pickle.dumps(make(numbered_corpus, 6, False))


def test_the_shared_memory_has_no_name(numbered_corpus: Corpus) -> None:
    stream = make(numbered_corpus, 24, False)
    batches = iter(loader(stream))
    take(batches, 3)
    assert stream._shared is not None
    link = Path(f"/proc/self/fd/{stream._shared._descriptor}")
    assert str(link.readlink()).startswith("/memfd:")


class TestStatefulDataLoader:
    """torchdata's loader keeps the states of the workers."""

    def loader(self, stream: MixtureStream) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(
            stream, batch_size=None, num_workers=WORKERS, multiprocessing_context="forkserver"
        )

    def test_its_state_resumes(self, numbered_corpus: Corpus) -> None:
        first = self.loader(make(numbered_corpus, 6, True))
        batches = iter(first)
        take(batches, 7)
        state = first.state_dict()
        expected = take(batches, 10)
        stream = make(numbered_corpus, 6, True)
        second = self.loader(stream)
        second.load_state_dict(state)
        assert same(take(second, 10), expected)
        with pytest.raises(StateError, match=r"resume with stream\.load_state_dict"):
            stream.set_mixture(mixture_at(numbered_corpus, 6, 1))

    def test_the_streams_own_state_resumes_too(self, numbered_corpus: Corpus) -> None:
        stream = make(numbered_corpus, 6, True)
        batches = iter(self.loader(stream))
        take(batches, 7)
        stream.set_mixture(mixture_at(numbered_corpus, 6, 1))
        state = stream.state_dict()
        expected = take(batches, 10)
        resumed = make(numbered_corpus, 6, True)
        resumed.load_state_dict(state)
        assert same(take(self.loader(resumed), 10), expected)
