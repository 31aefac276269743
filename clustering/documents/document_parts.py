"""The documents of a build, in parts that are mapped or fetched, never all in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.reading import FILES, PARTS
from clustering.work.work_store import WorkStore

MAPPED_PARTS = 64
FETCHED_PARTS = 2
"""Parts of an object store that are in memory at a time, of up to 64 MiB of text each."""


class DocumentParts:
    """Read access to what `ReadTask` left under a prefix.

    Documents are numbered through the parts. Digests are unique to texts, so a document is its digest to
    everything that must not depend on how the input is cut into files.
    """

    def __init__(self, store: WorkStore, prefix: str = "read") -> None:
        self._store = store
        self._prefix = prefix
        listed = json.loads(store.content(f"{prefix}/{PARTS}"))
        self._names: list[str] = listed["names"]
        self.part_offsets: NDArray[np.int64] = np.cumsum([0, *listed["documents"]], dtype=np.int64)
        """int64 (parts+1,): number of the first document of each part."""
        self._table = lru_cache(MAPPED_PARTS if store.maps else FETCHED_PARTS)(store.table)

    def __len__(self) -> int:
        return int(self.part_offsets[-1])

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return len(self._names)

    @property
    def source_names(self) -> list[str]:
        """Names of the input files; documents refer to them by index."""
        names: list[str] = self._store.table(f"{self._prefix}/{FILES}")["name"].to_pylist()
        return names

    def part(self, part: int) -> Any:
        """The `pyarrow.Table` of a part: text, source, row, digest, and id with --id-column."""
        return self._table(self._names[part])

    def digests(self, part: int) -> NDArray[np.uint64]:
        """uint64 (n, 2): the digests of a part."""
        column = self.part(part)["digest"].combine_chunks()
        start = 16 * column.offset
        raw = np.frombuffer(column.buffers()[1], dtype=np.uint8)[start : start + 16 * len(column)]
        return raw.view("<u8").reshape(-1, 2)

    def ids(self, part: int) -> list[str]:
        """What documents of a part are called: their id, or `FILE:ROW`."""
        table = self.part(part)
        if "id" in table.column_names:
            ids: list[str] = table["id"].to_pylist()
            return ids
        names = self.source_names
        pairs = zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True)
        return [f"{names[source]}:{row}" for source, row in pairs]

    def texts(self, documents: NDArray[np.int64]) -> list[str]:
        """The texts of the documents int64 (n,), any order, in that order; looks at every part once."""
        texts = np.empty(len(documents), dtype=object)
        for here, column in self._texts_by_part(documents):
            texts[here] = column.to_pylist()
        return list(texts)

    def lengths(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (n,): characters of the documents int64 (n,); looks at every part once."""
        import pyarrow.compute as pc

        lengths = np.empty(len(documents), dtype=np.int64)
        for here, column in self._texts_by_part(documents):
            lengths[here] = pc.utf8_length(column).to_numpy()
        return lengths

    @contextmanager
    def at_hand(
        self, documents: NDArray[np.int64]
    ) -> Iterator[Callable[[NDArray[np.int64]], list[str]]]:
        """Yields what `texts` does, for any of the documents int64 (n,), a few at a time.

        Mapped parts are read where they lie. Of an object store every part is fetched once, and the texts
        are in a file here until the block ends.
        """
        if self._store.maps or not len(documents):
            yield self.texts
            return
        import pyarrow as pa

        copied = np.unique(documents)
        with self._store.scratch() as folder:
            path, schema = str(folder / "texts.arrow"), pa.schema([("text", pa.large_string())])
            with pa.ipc.new_file(path, schema) as file:
                for _, column in self._texts_by_part(copied):
                    file.write_table(pa.table([column], schema=schema))
            with pa.memory_map(path) as mapped:
                column = pa.ipc.open_file(mapped).read_all()["text"]
            yield lambda wanted: column.take(np.searchsorted(copied, wanted)).to_pylist()

    def _texts_by_part(
        self, documents: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """Which of the documents lie in a part, and their texts, part by part."""
        part_of = np.searchsorted(self.part_offsets, documents, side="right") - 1
        for part in np.unique(part_of):
            here = np.flatnonzero(part_of == part)
            rows = documents[here] - self.part_offsets[part]
            yield here, self.part(int(part))["text"].take(rows)
