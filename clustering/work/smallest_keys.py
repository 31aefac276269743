"""The documents with the smallest keys, out of a stream of them, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SmallestKeys:
    """Remembers the `count` documents with the smallest keys; ties go to the lower number."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._keys = np.empty(0, dtype=np.uint64)
        self._documents = np.empty(0, dtype=np.int64)

    def add(self, keys: NDArray[np.uint64], documents: NDArray[np.int64]) -> None:
        """Look at more: uint64 (n,) and int64 (n,)."""
        if len(self._keys) >= self._count:
            small = keys <= self._keys.max(initial=0)
            keys, documents = keys[small], documents[small]
        if not len(keys):
            return
        keys = np.concatenate([self._keys, keys])
        documents = np.concatenate([self._documents, documents])
        order = np.lexsort((documents, keys))[: self._count]
        self._keys, self._documents = keys[order], documents[order]

    def documents(self) -> NDArray[np.int64]:
        """int64 (at most count,): by ascending key."""
        return self._documents
