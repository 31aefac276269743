"""DataLoader workers: how a stream in the main process and its copies in the workers stay together.

The workers know the draw by arithmetic, as ranks do: worker w of W serves every W-th batch. What they
cannot know is what the main process decides while they run ahead: a new mixture. It reaches them through
shared memory, and needs no lock, because a DataLoader tells its workers how far they may go. It asks for
W·P batches at the start (P is its prefetch_factor) and for one more with each batch that it hands out. So
after d batches the workers have been asked for the first d + W·P and no others, and a mixture that holds
from there on arrives in time everywhere. That makes the delay exact, and the same in every run and on every
rank.

The main process has to know d. A DataLoader does not tell its dataset; but for each batch that it asks for
it takes one number from a sampler, and `LoaderWatch` counts these.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, fields
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StateError
from pipeline.storage.storage import FetchStatistics

_STATISTICS = len(fields(FetchStatistics))


class LoaderWatch:
    """Counts the batches that a DataLoader has handed out."""

    def __init__(self, loader_iterator: Any) -> None:
        if loader_iterator._auto_collation or not getattr(loader_iterator, "_in_order", True):
            raise StateError(
                "a stream makes its own batches, and counts them as they come, in order: pass "
                "batch_size=None to the DataLoader, and leave in_order=True."
            )
        self.num_workers: int = loader_iterator._num_workers
        self.in_flight: int = self.num_workers * loader_iterator._prefetch_factor
        """Batches that workers may have begun and that were not handed out."""
        self._requests = 0
        self._sampler = loader_iterator._index_sampler
        loader_iterator._index_sampler = self

    @property
    def delivered(self) -> int:
        """Batches that the caller has received."""
        return max(0, self._requests - self.in_flight)

    def __iter__(self) -> Iterator[Any]:
        """Begin the only epoch; `StateError` for another, before any worker is told of it."""
        if self._requests:
            raise StateError(
                "a stream has no epochs: iterate the DataLoader once, without persistent_workers, and "
                "leave the loop when training ends."
            )
        return self._counted()

    def _counted(self) -> Iterator[Any]:
        for index in self._sampler:
            self._requests += 1
            yield index

    @staticmethod
    def of_caller(stream: object) -> LoaderWatch:
        """Watch the loader that is starting a worker with `stream` at this moment.

        A stream is pickled for no other reason, and the loader's iterator is then under construction
        further up the stack. Raises `StateError` where there is none.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner: Any = frame.f_locals.get("self")
            if getattr(owner, "_dataset", None) is stream and hasattr(owner, "_prefetch_factor"):
                found = owner._index_sampler
                return found if isinstance(found, LoaderWatch) else LoaderWatch(owner)
            frame = frame.f_back
        raise StateError(
            "a stream can be sent to the workers of a DataLoader and nowhere else. To continue it in "
            "another process or later, save stream.state_dict()."
        )


class SharedMixtures:
    """The mixtures that come into force in the course of a run, in memory that processes share.

    A ring of (step from which it holds, probabilities (k,)), and of each worker what its reading has cost and
    where it failed. The memory has no name: it is gone when the last process that has it open is, however
    that one ends.
    """

    def __init__(self, descriptor: int, k: int, capacity: int, num_workers: int) -> None:
        self._descriptor = descriptor
        self._shape = (k, capacity, num_workers)
        size = 8 * (2 + capacity + capacity * k + num_workers * (_STATISTICS + 1))
        os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)
        self._count = np.frombuffer(memory, dtype=np.int64, count=1)
        self._resumed = np.frombuffer(memory, dtype=np.int64, count=1, offset=8)
        self._steps = np.frombuffer(memory, dtype=np.int64, count=capacity, offset=16)
        at = 8 * (2 + capacity)
        self._probabilities = np.frombuffer(
            memory, dtype=np.float64, count=capacity * k, offset=at
        ).reshape(capacity, k)
        at += 8 * capacity * k
        self._statistics = np.frombuffer(
            memory, dtype=np.float64, count=num_workers * _STATISTICS, offset=at
        ).reshape(num_workers, _STATISTICS)
        self._failed = np.frombuffer(
            memory, dtype=np.int64, count=num_workers, offset=size - 8 * num_workers
        )
        """By worker, one more than the step that failed; 0 is none."""

    @classmethod
    def create(cls, k: int, watch: LoaderWatch) -> SharedMixtures:
        """Memory for the workers of `watch`.

        A worker has served all but the last W of the batches that were handed out, and no mixture can
        hold later than W·P after these: it can be that many mixtures behind.
        """
        capacity = watch.in_flight + watch.num_workers + 2
        return cls(os.memfd_create("braidstream"), k, capacity, watch.num_workers)

    def put(self, step: int, probabilities: NDArray[np.float64]) -> None:
        """Let `probabilities` hold from `step` on; a second call for one step replaces the first."""
        count = int(self._count[0])
        if count and self._steps[(count - 1) % len(self._steps)] == step:
            count -= 1
        place = count % len(self._steps)
        self._probabilities[place] = probabilities
        self._steps[place] = step
        self._count[0] = count + 1  # last: what is counted is complete

    def after(self, seen: int, until: int) -> list[tuple[int, NDArray[np.float64]]]:
        """The mixtures beyond the first `seen` that hold from step `until` or earlier, oldest first."""
        found = []
        for number in range(seen, int(self._count[0])):
            place = number % len(self._steps)
            if self._steps[place] > until:
                break
            found.append((int(self._steps[place]), self._probabilities[place].copy()))
        return found

    @property
    def resumed(self) -> bool:
        """Whether a loader has given its workers a state that the main process has not seen."""
        return bool(self._resumed[0])

    @resumed.setter
    def resumed(self, value: bool) -> None:
        self._resumed[0] = value

    def fail(self, worker: int, step: int) -> None:
        """Tell that the batch of `step` could not be made, and `worker` makes no other."""
        self._failed[worker] = step + 1

    @property
    def first_failed(self) -> int:
        """The first step whose batch could not be made; beyond all steps while there is none."""
        failed = self._failed[self._failed > 0]
        return int(failed.min()) - 1 if len(failed) else sys.maxsize

    def report(self, worker: int, statistics: FetchStatistics) -> None:
        """Tell what reading has cost `worker` so far."""
        self._statistics[worker] = astuple(statistics)

    @property
    def statistics(self) -> FetchStatistics:
        """What reading has cost all workers together."""
        sums = self._statistics.sum(axis=0)
        values: dict[str, Any] = {
            field.name: float(value) if field.type == "float" else int(value)
            for field, value in zip(fields(FetchStatistics), sums, strict=True)
        }
        return FetchStatistics(**values)

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _attach, (DupFd(self._descriptor), *self._shape)

    def __del__(self) -> None:
        os.close(self._descriptor)


def _attach(descriptor: Any, k: int, capacity: int, num_workers: int) -> SharedMixtures:
    return SharedMixtures(descriptor.detach(), k, capacity, num_workers)
