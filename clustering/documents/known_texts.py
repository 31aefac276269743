"""Which texts are new: neither in the corpus nor seen before among those that are being added."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_MOST_PORTIONS = 16

Digests = NDArray[np.uint64]


class KnownTexts:
    """Sorted arrays of digests, asked many at a time: 8 bytes for every new text, nothing for mapped ones."""

    def __init__(self, known: Iterable[Digests]) -> None:
        self._known = [digests for digests in known if len(digests)]
        self._admitted: list[Digests] = []

    def admit(self, digests: Digests) -> NDArray[np.bool_]:
        """Which of `digests` (n,) are new, the first of equal ones only: bool (n,). Now they are known."""
        new = np.zeros(len(digests), dtype=np.bool_)
        new[np.unique(digests, return_index=True)[1]] = True
        for known in (*self._known, *self._admitted):
            place = np.minimum(np.searchsorted(known, digests), len(known) - 1)
            new &= known[place] != digests
        if new.any():
            self._admitted.append(np.sort(digests[new]))
        if len(self._admitted) > _MOST_PORTIONS:
            self._admitted = [np.sort(np.concatenate(self._admitted))]
        return new
