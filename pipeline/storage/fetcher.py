"""Fetches blocks in the background, those that a batch waits for before those that will be needed.

A small pool of threads that exist only while there is something to do. What is read ahead is a list that a
newer list replaces, so a new mixture redirects the pool at once; what is under way is finished.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from pipeline.errors import StorageError
from pipeline.storage.blocks import Ints

Load = Callable[[int, bool], bytes | None]
"""load(block, urgent) gets one block. None says that it is, or will be, where the caller looks first; what is
not urgent may be left to another process that is already at it."""
Outcome = bytes | None | BaseException
Arrivals = SimpleQueue[tuple[int, Outcome]]

_IDLE_SECONDS = 2.0
_EXIT_SECONDS = 1.0
_open_fetchers: weakref.WeakSet[Fetcher] = weakref.WeakSet()


class Fetcher:
    """Runs `load` for blocks, `connections` at a time; one block never twice at once."""

    def __init__(self, load: Load, *, connections: int) -> None:
        self.closing = threading.Event()
        """Set when a `load` under way should give up."""
        self._load = load
        self._connections = connections
        # Read-ahead leaves some connections free, so that a waiting batch need not queue behind it.
        self._most_ahead = max(1, connections - max(1, connections // 8))
        self._changed = threading.Condition()
        self._urgent: deque[int] = deque()
        self._ahead: deque[int] = deque()
        # Each block under way, with those who waited for it when it was begun: nobody if it is read ahead.
        self._under_way: dict[int, list[Arrivals]] = {}
        self._waiting: dict[int, list[Arrivals]] = {}
        self._threads: set[threading.Thread] = set()
        _open_fetchers.add(self)

    @contextmanager
    def fetch(self, blocks: Ints) -> Iterator[Iterator[tuple[int, bytes | None]]]:
        """Fetch different `blocks` (n,) now: yields an iterator of (block, content) as they come.

        The iterator raises what a block's `load` raised. Leaving the `with` block early cancels what was not
        begun. Waiting can be interrupted by Ctrl-C.
        """
        arrivals: Arrivals = SimpleQueue()
        wanted = blocks.tolist()
        try:
            with self._changed:
                if self.closing.is_set():
                    raise _closed()
                for block in wanted:
                    if block not in self._waiting and block not in self._under_way:
                        self._urgent.append(block)
                    self._waiting.setdefault(block, []).append(arrivals)
                self._put_to_work()
            yield _results(arrivals, len(wanted))
        finally:
            self._withdraw(wanted, arrivals)

    def read_ahead(self, blocks: Ints) -> None:
        """Fetch `blocks` (m,) in this order when nothing is urgent; replaces the earlier list.

        Failures are kept quiet: a block that is needed will be urgent, and then its failure is the caller's.
        """
        with self._changed:
            self._ahead = deque(blocks.tolist())
            self._put_to_work()

    def close(self) -> None:
        """Stop soon; whoever waits gets an error."""
        with self._changed:
            self.closing.set()
            self._ahead.clear()
            self._urgent.clear()
            for block, waiting in self._waiting.items():
                for arrivals in waiting:
                    arrivals.put((block, _closed()))
            self._waiting.clear()
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join(_EXIT_SECONDS / len(threads))

    def _put_to_work(self) -> None:
        free = len(self._threads) - len(self._under_way)
        backlog = len(self._urgent) + len(self._ahead)
        self._changed.notify(backlog)
        for _ in range(min(backlog - free, self._connections - len(self._threads))):
            # Daemons: a fetch that hangs must not keep the process alive.
            thread = threading.Thread(target=self._work, name="braidstream-fetch", daemon=True)
            thread.start()  # the system may refuse
            self._threads.add(thread)

    def _work(self) -> None:
        while (block := self._next()) is not None:
            outcome: Outcome
            try:
                outcome = self._load(block, bool(self._under_way[block]))
            except BaseException as error:  # a panic of the client's native code is no Exception
                outcome = error
            self._deliver(block, outcome)
            del outcome

    def _deliver(self, block: int, outcome: Outcome) -> None:
        """Hand a block to all who wait. A failure is for those who waited when it was begun.

        For whoever came later it may be old news, so the block is tried again.
        """
        with self._changed:
            from_the_start = self._under_way.pop(block)
            waiting = self._waiting.pop(block, [])
            if isinstance(outcome, BaseException):
                later = [arrivals for arrivals in waiting if arrivals not in from_the_start]
                waiting = [arrivals for arrivals in waiting if arrivals in from_the_start]
                if later:
                    self._waiting[block] = later
                    self._urgent.append(block)
            for arrivals in waiting:
                arrivals.put((block, outcome))

    def _next(self) -> int | None:
        """The next block; None when this thread should end."""
        with self._changed:
            while not self.closing.is_set():
                if (block := self._take()) is not None:
                    return block
                if not self._changed.wait(_IDLE_SECONDS) and not (self._urgent or self._ahead):
                    break
            self._threads.discard(threading.current_thread())
            return None

    def _take(self) -> int | None:
        while self._urgent:
            block = self._urgent.popleft()
            if block in self._waiting and block not in self._under_way:
                self._under_way[block] = list(self._waiting[block])
                return block
        ahead = sum(not waiting for waiting in self._under_way.values())
        while self._ahead and ahead < self._most_ahead:
            block = self._ahead.popleft()
            if block not in self._waiting and block not in self._under_way:
                self._under_way[block] = []
                return block
        return None

    def _withdraw(self, blocks: list[int], arrivals: Arrivals) -> None:
        with self._changed:
            for block in blocks:
                waiting = self._waiting.get(block, [])
                if arrivals in waiting:
                    waiting.remove(arrivals)
                    if not waiting:
                        del self._waiting[block]


def _results(arrivals: Arrivals, count: int) -> Iterator[tuple[int, bytes | None]]:
    for _ in range(count):
        block, outcome = arrivals.get()
        if isinstance(outcome, BaseException):
            raise outcome
        yield block, outcome


def _closed() -> StorageError:
    return StorageError("the process is ending; no more blocks are fetched.")


@atexit.register
def _close_all() -> None:
    """A thread that comes back from the client's native code into an ending interpreter would abort it."""
    for fetcher in list(_open_fetchers):
        fetcher.close()
