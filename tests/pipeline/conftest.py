"""DataLoaders that start quickly and are gone when their test is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest

from tests.processes import stream_processes


@pytest.fixture
def quick_loaders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers are forked from a process that has imported torch, and end with the test.

    The iterator of a loader that raised is part of a reference cycle. When that is collected, in some later
    test, it may wait five seconds for each of its workers.
    """
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    begun: WeakSet[Any] = WeakSet()
    begin = _BaseDataLoaderIter.__init__

    def noted(self: Any, *args: Any) -> None:
        begun.add(self)
        begin(self, *args)

    monkeypatch.setattr(_BaseDataLoaderIter, "__init__", noted)
    stream_processes()
    yield
    for iterator in list(begun):
        if hasattr(iterator, "_workers"):
            iterator._shutdown_workers()
