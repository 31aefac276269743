"""The stream: batches without end from a mixture that may change before any of them.

What batch t holds depends only on the seed, t, the samples used so far, and the mixture in force; every
rank computes the same draw and keeps its slice, and so does every worker of a DataLoader. docs/stream.md
says what is guaranteed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.corpus.corpus import Corpus, check_corpus
from pipeline.corpus.versions import advice
from pipeline.corpus.view import View
from pipeline.errors import MixtureError, StateError
from pipeline.samples.batch import Batch
from pipeline.samples.packing import packed, unpacked
from pipeline.storage.storage import FetchStatistics
from pipeline.stream.budget import RepetitionBudget, check_budget, paced_probabilities
from pipeline.stream.course import Course
from pipeline.stream.mixture import Mixture, check_mixture
from pipeline.stream.order import SampleOrder
from pipeline.stream.plan import Planner, Share
from pipeline.stream.workers import LoaderWatch, SharedMixtures

STATE_VERSION = 2
SHUFFLE_BYTES = 2**30
_NO_ROWS = slice(0)


class MixtureStream(IterableDataset[Batch], Iterator[Batch]):
    """Endless batches of `corpus`, drawn from `mixture` and from whatever `set_mixture` puts in force.

    `batch_size` counts the samples of the global batch; each of `world_size` ranks gets an equal part of
    it. With a `budget`, no domain repeats more often than it allows, and the stream serves exactly the
    steps that the budget was planned for. Large domains are shuffled within windows of blocks;
    `shuffle_bytes` is the size of all domains' windows together. `transform` maps a sample to whatever
    training needs; it runs where the batch is made, so that workers share the work.

    Iterate it, or hand it to `torch.utils.data.DataLoader(stream, batch_size=None, num_workers=…,
    multiprocessing_context="forkserver")`. Raises `ValueError` for sizes and ranks that do not fit,
    `TypeError` for what is no corpus, mixture or budget, `MixtureError` for one over another corpus,
    `BudgetError` for a budget too small for its run.
    """

    def __init__(
        self,
        corpus: Corpus,
        mixture: Mixture,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        budget: RepetitionBudget | None = None,
        transform: Callable[[Any], Any] | None = None,
        shuffle_bytes: int = SHUFFLE_BYTES,
    ) -> None:
        check_corpus(corpus)
        for name, value in (("batch_size", batch_size), ("seed", seed)):
            if not hasattr(value, "__index__"):
                raise TypeError(f"{name}={value!r} must be a whole number.")
        # Of numpy they would neither be JSON nor, as a seed, fit the generator.
        batch_size, seed, shuffle_bytes = index(batch_size), index(seed), int(shuffle_bytes)
        if batch_size < 1 or world_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} counts the global batch and must be a positive multiple of "
                f"world_size={world_size}, so that every rank gets the same number of samples."
            )
        if not 0 <= rank < world_size:
            raise ValueError(
                f"rank={rank} must lie in 0..{world_size - 1} (world_size={world_size})."
            )
        check_mixture(mixture)
        if mixture.view.corpus_fingerprint != corpus.fingerprint:
            raise MixtureError(
                f"the mixture belongs to corpus {mixture.view.corpus_fingerprint[:12]}, the stream to "
                f"corpus {corpus.fingerprint[:12]}; make the mixture from corpus.domains(…)."
            )
        if budget is not None:
            check_budget(budget)
            budget.check(mixture.view.sizes, batch_size)
        self.corpus = corpus
        self.batch_size = batch_size
        self.seed = seed
        self.budget = budget
        self.transform = transform
        self.shuffle_bytes = shuffle_bytes
        self.wait_seconds = 0.0
        """Seconds that this process has spent on getting the bytes of samples."""
        local_size = batch_size // world_size
        self.rank, self.world_size = rank, world_size
        self._rows = slice(rank * local_size, (rank + 1) * local_size)
        self._order = SampleOrder.of(corpus, mixture.view, seed=seed, shuffle_bytes=shuffle_bytes)
        _check_cache(corpus, self._order)
        self._course = Course(self._planner(Share(self._rows)), mixture)
        self._watch: LoaderWatch | None = None
        """In the main process, while workers make the batches."""
        self._watched_from = 0
        self._shared: SharedMixtures | None = None
        """In the main process and in its workers."""
        self._in_worker = False
        self._seen = 0
        """In a worker: how many mixtures it has taken from the shared memory."""
        self._failed: Exception | None = None
        """In a worker: why it makes no more batches."""
        self._statistics_of_loaders = FetchStatistics()
        """In the main process: what reading has cost the workers of loaders that are gone."""

    @property
    def step(self) -> int:
        """Index of the next batch that the caller will receive."""
        self._follow_loader()
        return self._course.step

    @property
    def mixture(self) -> Mixture:
        """The mixture in force for the next batch."""
        self._follow_loader()
        return self._course.mixture

    @property
    def view(self) -> View:
        """The view that mixtures and domain numbers refer to."""
        return self._course.mixture.view

    @property
    def samples_drawn(self) -> NDArray[np.int64]:
        """Samples drawn from each domain so far, over all ranks: int64 (k,)."""
        self._follow_loader()
        return self._course.drawn

    @property
    def passes(self) -> NDArray[np.float64]:
        """Passes over each domain so far: float64 (k,); 0 for empty domains."""
        return np.divide(self.samples_drawn, np.maximum(self.view.sizes, 1), dtype=np.float64)

    @property
    def effective_probabilities(self) -> NDArray[np.float64]:
        """What the next batch is drawn from, after the budget: float64 (k,)."""
        self._follow_loader()
        course = self._course
        if self.budget is None:
            return course.mixture.probabilities
        return paced_probabilities(
            course.mixture, self.budget, course.drawn, course.step, self.batch_size
        )

    @property
    def statistics(self) -> FetchStatistics:
        """What reading from object storage has cost, in this process or in the workers."""
        total = self.corpus.statistics + self._statistics_of_loaders
        return total if self._shared is None else total + self._shared.statistics

    def set_mixture(self, mixture: Mixture) -> int:
        """Draw from `mixture` as soon as can be; returns the step from which it holds.

        That is the very next batch, or, with W workers of a DataLoader, the first that no worker can have
        begun: W · prefetch_factor batches later. The mixture must be over the stream's view:
        `mixture.to(stream.view)` carries it there.
        """
        check_mixture(mixture)
        if mixture.view != self.view:
            raise MixtureError(
                f"the mixture is over {mixture.view}, the stream over {self.view}; carry it over with "
                "mixture.to(stream.view)."
            )
        self._follow_loader()
        course = self._course
        if self._watch is None:
            course.changes.clear()  # decided earlier
            course.put_in_force(mixture)
            return course.step
        assert self._shared is not None
        step = course.step + self._watch.in_flight
        self._shared.put(step, mixture.probabilities)
        course.changes = [change for change in course.changes if change[0] < step]
        course.changes.append((step, mixture))
        return step

    def __iter__(self) -> Iterator[Batch]:
        """The stream itself, or in a worker of a DataLoader that worker's part of it."""
        self._enter_worker()
        return self

    def __next__(self) -> Batch:
        """The next batch; it never ends on its own."""
        if self._in_worker:
            return self._serve()
        if self._watch is not None:
            self._leave_loader()
        self._follow_loader()
        return self._take()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue after the last batch received, on any number of ranks and workers.

        Plain JSON types; 8 bytes per domain before compression for each of counts and mixture.
        """
        self._follow_loader()
        course = self._course
        return {
            **self._identity(),
            "step": course.step,
            "samples_drawn": packed(course.drawn),
            "mixture": packed(course.mixture.probabilities),
            "changes": [[step, packed(mixture.probabilities)] for step, mixture in course.changes],
            "worker": self._worker_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; `StateError` lists what differs if it does not fit."""
        if not isinstance(state, Mapping):
            raise TypeError(
                f"a state is the dictionary that state_dict() gave, not {type(state).__name__}. Of a file, "
                "give json.loads(text)."
            )
        differences = [
            f"{name}: saved {state.get(name)!r}, this stream {value!r}"
            for name, value in self._identity().items()
            if state.get(name) != value
        ]
        if differences:
            raise StateError(
                "the saved state belongs to another stream ("
                + "; ".join(differences)
                + "). Open the corpus, view and settings that it was saved with."
                + advice(self.corpus.manifest, state.get("corpus"))
            )
        self._load_worker_state(state["worker"])
        view = self.view
        self._course.begin(
            int(state["step"]),
            unpacked(state["samples_drawn"], np.int64),
            Mixture(view, unpacked(state["mixture"], np.float64)),
            [
                (int(step), Mixture(view, unpacked(probabilities, np.float64)))
                for step, probabilities in state["changes"]
            ],
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "corpus": self.corpus.fingerprint,
            "domains": self.view.k,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle_bytes": self.shuffle_bytes,
            "budget": None if self.budget is None else asdict(self.budget),
        }

    def _take(self) -> Batch:
        """Make the next batch."""
        course = self._course
        plan = course.plan
        row = plan.served.index(course.step)
        started = time.perf_counter()
        samples = self.corpus.reader.copy(plan.local_handles[row])
        self.wait_seconds += time.perf_counter() - started
        if self.transform is not None:
            # In a generator, where a StopIteration is an error and does not end the stream without a word.
            samples = list(self.transform(sample) for sample in samples)  # noqa: C400
        domains, positions = plan.local_domains[row].copy(), plan.local_positions[row].copy()
        batch = Batch(course.step, samples, domains, positions)
        course.step += 1
        return batch

    def _planner(self, share: Share) -> Planner:
        return Planner(
            seed=self.seed,
            batch_size=self.batch_size,
            order=self._order,
            reader=self.corpus.reader,
            budget=self.budget,
            share=share,
            reads_ahead=self.corpus.blocks is not None and share.rows != _NO_ROWS,
        )

    # The main process, while workers make the batches.

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to a worker that a DataLoader is starting."""
        watch = LoaderWatch.of_caller(self)
        if watch is not self._watch:
            self._follow_loader()
            self._forget_loader()
            self._watch, self._watched_from = watch, self._course.step
            self._shared = SharedMixtures.create(self.view.k, watch)
            self._course.serve(self._planner(Share(_NO_ROWS)))  # counts, and locates nothing
        settings = {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "rank": self.rank,
            "world_size": self.world_size,
            "budget": self.budget,
            "transform": self.transform,
            "shuffle_bytes": self.shuffle_bytes,
        }
        reopen = self.corpus.__reduce__()
        return _worker_copy, (reopen, self.view.k, settings, self.state_dict(), self._shared)

    def _follow_loader(self) -> None:
        """Go to where the caller is: just after the last batch that came, whoever made it."""
        if self._watch is None:
            self._course.move_to(self._course.step)
            return
        assert self._shared is not None
        if self._shared.resumed:
            raise StateError(
                "the loader was resumed from a state of its own, which only its workers have seen. To save "
                "or to change the mixture in this process, resume with stream.load_state_dict(state) and a "
                "new loader instead; state is what stream.state_dict() returned."
            )
        delivered = self._watched_from + self._watch.delivered
        self._course.move_to(min(delivered, self._shared.first_failed))

    def _leave_loader(self) -> None:
        """Make batches in this process again, from the last one on that the loader handed out."""
        self._follow_loader()
        self._forget_loader()
        self._course.serve(self._planner(Share(self._rows)))

    def _forget_loader(self) -> None:
        if self._shared is not None:
            self._statistics_of_loaders += self._shared.statistics
        self._watch = self._shared = None

    # A worker.

    def _enter_worker(self) -> None:
        """Serve every W-th batch, the first time that a worker process gets here."""
        worker = get_worker_info()
        if worker is None or self._in_worker:
            return
        if self._shared is None or self._watch is not None:  # or it has those of an earlier loader
            raise StateError(
                "this worker was forked, and a fork inherits neither the connections of an object store "
                'nor what the stream shares with its workers. Pass multiprocessing_context="forkserver" '
                '(or "spawn") to the DataLoader.'
            )
        self._in_worker = True
        first_step = self._course.step + worker.id
        share = Share(self._rows, first_step=first_step, every=worker.num_workers)
        self._course.serve(self._planner(share))

    def _serve(self) -> Batch:
        """This worker's next batch. No generator: after an error that would end the epoch without a word."""
        worker, shared, course = get_worker_info(), self._shared, self._course
        assert worker is not None
        assert shared is not None
        if self._failed is not None:
            raise self._failed
        step = course.planner.share.next_after(course.step)
        for holds_from, probabilities in shared.after(self._seen, step):
            self._seen += 1
            course.changes = [change for change in course.changes if change[0] < holds_from]
            course.changes.append((holds_from, Mixture(self.view, probabilities)))
        try:
            course.move_to(step)
            batch = self._take()
        except Exception as error:
            # The loader counts what failed as handed out, and would go on with the batch after it.
            self._failed = error
            shared.fail(worker.id, step)
            raise
        shared.report(worker.id, self.corpus.statistics)
        return batch

    def _worker_state(self) -> dict[str, int] | None:
        self._enter_worker()
        share = self._course.planner.share
        return {"first_step": share.first_step, "every": share.every} if self._in_worker else None

    def _load_worker_state(self, saved: dict[str, int] | None) -> None:
        """Of a torchdata StatefulDataLoader, which keeps a state per worker; None of a main process."""
        self._enter_worker()
        if not self._in_worker:
            self._forget_loader()
            self._course.serve(self._planner(Share(self._rows)))
        elif saved is not None:
            assert self._shared is not None
            if saved["every"] != self._course.planner.share.every:
                raise StateError(
                    f"the loader's state is of {saved['every']} workers, this loader has "
                    f"{self._course.planner.share.every}. Resume with as many, or from "
                    "stream.state_dict(), which serves any number."
                )
            self._shared.resumed = True
            self._course.serve(self._planner(Share(self._rows, **saved)))


class _Unopened(IterableDataset[Batch]):
    """The stream of a worker that could not open the corpus: says why where its first batch should be.

    An error while the stream is sent would end the process, and all that the caller would learn is that.
    """

    def __init__(self, error: Exception, step: int, shared: SharedMixtures) -> None:
        self._error, self._step, self._shared = error, step, shared

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        assert worker is not None
        self._shared.fail(worker.id, self._step + worker.id)
        raise self._error


def _worker_copy(
    reopen: tuple[Callable[..., Corpus], tuple[Any, ...]],
    k: int,
    settings: dict[str, Any],
    state: dict[str, Any],
    shared: SharedMixtures,
) -> MixtureStream | _Unopened:
    open_again, arguments = reopen
    try:
        corpus = open_again(*arguments)
        stream = MixtureStream(corpus, Mixture.natural(corpus.domains(k=k)), **settings)
    except Exception as error:
        return _Unopened(error, state["step"], shared)
    stream.load_state_dict(state)
    stream._shared = shared
    return stream


def _check_cache(corpus: Corpus, order: SampleOrder) -> None:
    """Warn if what the domains have in hand does not fit: blocks would come again and again."""
    if corpus.blocks is None:
        return
    block_bytes, room = corpus.grid.block_bytes, corpus.cache.bytes
    needed = min(order.working_set, corpus.grid.num_blocks) * block_bytes
    if needed > room:
        warnings.warn(
            f"the {order.ranges.k:,} domains have {needed / 2**20:,.0f} MiB in hand at a time, the "
            f"cache holds {room / 2**20:,.0f} MiB: blocks will be fetched many times. Allow a larger cache "
            "(cache_bytes), a smaller shuffle (shuffle_bytes), or fewer domains.",
            stacklevel=3,
        )
