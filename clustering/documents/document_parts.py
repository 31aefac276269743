"""The documents of a build, in parts that are mapped, never all in memory."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.reading import FILES, PARTS
from clustering.work.work_store import WorkStore

MAPPED_PARTS = 64


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
        self._table = lru_cache(maxsize=MAPPED_PARTS)(store.table)

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
        """The texts of the documents int64 (n,), any order, in that order."""
        part_of = np.searchsorted(self.part_offsets, documents, side="right") - 1
        texts = np.empty(len(documents), dtype=object)
        for part in np.unique(part_of):
            here = np.flatnonzero(part_of == part)
            rows = documents[here] - self.part_offsets[part]
            texts[here] = self.part(int(part))["text"].take(rows).to_pylist()
        return list(texts)
