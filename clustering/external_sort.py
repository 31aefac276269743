"""Sort more records than fit the memory: sorted runs on disk, merged range by range.

Every record is compared by all of its fields, in their order. The merge is by ranges: sampled records of
the runs cut the whole into ranges of bounded size, each run's part of a range is contiguous, and a range is
sorted as a whole. So nothing happens record by record in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = NDArray[Any]
"""Of a structured type whose fields are numbers."""


class ExternalSort:
    """Takes records in any order and amounts, and gives them back ascending.

    Args:
        folder: An empty or new folder for the runs; the caller removes it.
        dtype: Type of the records; the first field decides first.
        memory_bytes: What a run, and a chunk that is given back, may take.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], *, memory_bytes: int) -> None:
        self._folder = folder
        self._dtype = dtype
        self._limit = max(1, memory_bytes // dtype.itemsize)
        self._buffer: list[Records] = []
        self._buffered = 0
        self._runs: list[Path] = []

    def add(self, records: Records) -> None:
        """Take more records."""
        while len(records):
            taken = records[: self._limit - self._buffered]
            self._buffer.append(np.array(taken, dtype=self._dtype))
            self._buffered += len(taken)
            records = records[len(taken) :]
            if self._buffered == self._limit:
                self._spill()

    def chunks(self) -> Iterator[Records]:
        """All records, ascending, in pieces of at most `memory_bytes`. Equal records may be cut apart."""
        if not self._runs:
            if self._buffered:
                yield self._take_buffer()
            return
        if self._buffered:
            self._spill()
        runs = [np.memmap(path, dtype=self._dtype, mode="r") for path in self._runs]
        for begins, ends in pairwise(self._cuts(runs)):
            pieces = [run[b:e] for run, b, e in zip(runs, begins, ends, strict=True) if b < e]
            if pieces:
                yield _sorted(np.concatenate(pieces))

    def _take_buffer(self) -> Records:
        records = _sorted(np.concatenate(self._buffer))
        self._buffer, self._buffered = [], 0
        return records

    def _spill(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"run-{len(self._runs):05}.bin"
        self._take_buffer().tofile(path)
        self._runs.append(path)

    def _cuts(self, runs: list[Records]) -> list[NDArray[np.int64]]:
        """Where each run is cut, for every range: arrays int64 (runs,), the first 0, the last the lengths.

        Every m-th record of a run is a sample. Between two samples of a run lie at most m records, so a range
        between splitters that are 3r samples apart (r runs) has at most (3r + r)·m of them.
        """
        spacing = max(1, self._limit // (4 * len(runs)))
        samples = _sorted(np.concatenate([run[spacing::spacing] for run in runs]))
        splitters = samples[3 * len(runs) :: 3 * len(runs)]
        cuts = [np.zeros(len(runs), dtype=np.int64)]
        cuts += [
            np.array([np.searchsorted(run, splitter) for run in runs]) for splitter in splitters
        ]
        return [*cuts, np.array([len(run) for run in runs])]


def _sorted(records: Records) -> Records:
    names = records.dtype.names
    assert names is not None, "records have fields"
    # lexsort takes the deciding key last; on numbers it is many times faster than sorting records.
    return records[np.lexsort([records[name] for name in reversed(names)])]
