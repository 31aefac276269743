"""Sort more records than fit into memory: sorted runs on disk, merged a block of each at a time.

Records are numpy structured arrays, and the order is that of their fields, the first one first. All fields
take part, so records that compare equal are the same, and the result depends on nothing but the records:
neither on the memory given nor on the portions they came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]

SORT_MEMORY_BYTES = 512 * 2**20
MOST_RUNS_AT_ONCE = 128
"""Files that a merge has open; with more runs than this, it takes several passes."""
_FEWEST_BUFFERED = 1_024
"""Records of a run that are worth one read; smaller buffers take more passes instead."""
_INDEX_BYTES = 24
"""What ordering costs beside the records and their copy: an index, and the field it is made from."""


class ExternalSort:
    """Takes records in any amounts, gives them back in order.

        sort = ExternalSort(scratch / "sort", dtype)
        for records in ...:
            sort.add(records)
        for chunk in sort.chunks():
            ...

    Args:
        folder: A new folder on a local disk, which is made when it is needed, and removed by whoever gave it.
            Room for all records is needed, and for them twice when the merge takes several passes.
        dtype: A structured type; its fields, in their order, are what is sorted by.
        memory_bytes: Bound of what is held at a time, whatever the number of records.
    """

    def __init__(
        self, folder: Path, dtype: np.dtype[np.void], *, memory_bytes: int = SORT_MEMORY_BYTES
    ) -> None:
        assert dtype.names, f"records have named fields, in the order of sorting; found {dtype}"
        self.folder = folder
        self.dtype = dtype
        self._capacity = max(2, memory_bytes // (2 * dtype.itemsize + _INDEX_BYTES))
        self._pending: Records = np.empty(0, dtype)
        self._num_pending = 0
        self._runs: list[Path] = []
        self._runs_written = 0

    def add(self, records: Records) -> None:
        """Take records (n,) of the dtype."""
        assert records.dtype == self.dtype, f"expected {self.dtype}, found {records.dtype}"
        while len(records):
            if self._num_pending == self._capacity:
                self._write_run([in_order(self._pending)])
                self._num_pending = 0
            taken = records[: self._capacity - self._num_pending]
            self._reserve(self._num_pending + len(taken))
            self._pending[self._num_pending : self._num_pending + len(taken)] = taken
            self._num_pending += len(taken)
            records = records[len(taken) :]

    def chunks(self) -> Iterator[Records]:
        """All records in order, in arrays (n,) of no fixed length. Ends what can be added."""
        last = in_order(self._pending[: self._num_pending])
        self._pending, self._num_pending = np.empty(0, self.dtype), 0
        if not self._runs:
            if len(last):
                yield last
            return
        if len(last):
            self._write_run([last])
        del last
        fan_in = min(MOST_RUNS_AT_ONCE, max(2, self._capacity // _FEWEST_BUFFERED))
        while len(self._runs) > fan_in:
            earliest, self._runs = self._runs[:fan_in], self._runs[fan_in:]
            self._write_run(self._merged(earliest))
            for path in earliest:
                path.unlink()
        yield from self._merged(self._runs)

    def _reserve(self, count: int) -> None:
        """Room for `count` pending records; it doubles, so that a small sort takes little memory."""
        if count > len(self._pending):
            grown = np.empty(min(self._capacity, max(count, 2 * len(self._pending))), self.dtype)
            grown[: self._num_pending] = self._pending[: self._num_pending]
            self._pending = grown

    def _write_run(self, chunks: Iterator[Records] | Sequence[Records]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"run-{self._runs_written:06}"
        with path.open("wb") as file:
            for chunk in chunks:
                chunk.tofile(file)
        self._runs_written += 1
        self._runs.append(path)

    def _merged(self, paths: Sequence[Path]) -> Iterator[Records]:
        """The records of sorted runs in order.

        Whatever is not greater than the last record in hand of *every* run that goes on can be given out:
        nothing that is still on disk comes before it.
        """
        size = max(1, self._capacity // len(paths))
        runs = [_Run(path, self.dtype, size) for path in paths]
        try:
            while runs := [run for run in runs if run.fill()]:
                bounds = [run.records[-1:] for run in runs if run.goes_on]
                if not bounds:
                    yield in_order(np.concatenate([run.take(len(run.records)) for run in runs]))
                    return
                bound = in_order(np.concatenate(bounds))[0]
                yield in_order(
                    np.concatenate([run.take(_end_of(run.records, bound)) for run in runs])
                )
        finally:
            for run in runs:
                run.close()


class _Run:
    """One sorted file, of which a bounded number of records is in hand."""

    def __init__(self, path: Path, dtype: np.dtype[np.void], size: int) -> None:
        self._file: IO[bytes] = path.open("rb")
        self._size = size
        self._unread = path.stat().st_size // dtype.itemsize
        self.records: Records = np.empty(0, dtype)

    @property
    def goes_on(self) -> bool:
        """Whether there is more on disk."""
        return self._unread > 0

    def fill(self) -> bool:
        """Have as many records in hand as fit; False (and closed) when none are left."""
        count = min(self._size - len(self.records), self._unread)
        if count:
            fresh: Records = np.fromfile(self._file, self.records.dtype, count)
            self._unread -= count
            self.records = np.concatenate([self.records, fresh]) if len(self.records) else fresh
        if not len(self.records):
            self.close()
        return len(self.records) > 0

    def take(self, count: int) -> Records:
        taken, self.records = self.records[:count], self.records[count:]
        return taken

    def close(self) -> None:
        self._file.close()


def in_order(records: Records) -> Records:
    """Records (n,) sorted by their fields, the first field first."""
    names = records.dtype.names
    assert names is not None
    first = np.ascontiguousarray(records[names[0]])
    order = np.argsort(first)
    first = first[order]
    tied = np.zeros(len(records), dtype=np.bool_)
    equal = first[1:] == first[:-1]
    tied[1:] |= equal
    tied[:-1] |= equal
    del first, equal
    if tied.any():  # only they need the other fields, and each group of them keeps its places
        places = np.flatnonzero(tied)
        group = order[places]
        order[places] = group[np.lexsort([records[name][group] for name in reversed(names)])]
    ordered: Records = records[order]
    return ordered


def _end_of(records: Records, bound: Any) -> int:
    """How many of the sorted records are not greater than the record `bound`."""
    begin, end = 0, len(records)
    for name in records.dtype.names or ():
        field = records[name][begin:end]
        begin, end = (
            begin + int(np.searchsorted(field, bound[name], side="left")),
            begin + int(np.searchsorted(field, bound[name], side="right")),
        )
    return end
