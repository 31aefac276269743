"""Vectors of the documents, part by part, as plain Arrow that other programs read, too.

    embed/part-00000.arrow    one row per kept document of part 0 of the documents, in their order
        document: string                          its id
        vector: fixed_size_list<float16>[dim]     of unit norm (but for the rounding of float16)

Any Arrow reader opens such a file (`pyarrow.ipc.open_file`, `polars.read_ipc`, `pandas.read_feather`), and
`braidstream build --embeddings` takes the folder for another build (adopted_embeddings.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.work.work_store import WorkStore


def part_name(part: int) -> str:
    """Name of a part's vectors in the work store."""
    return f"embed/part-{part:05}.arrow"


def publish_vectors(
    store: WorkStore, name: str, ids: Sequence[str], vectors: NDArray[np.floating[Any]]
) -> None:
    """Publish the vectors (n, dim) of n documents, rounded to float16."""
    import pyarrow as pa

    numbers = pa.array(np.ascontiguousarray(vectors, dtype=np.float16).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
    names = pa.array(ids, type=pa.string())
    store.publish_table(name, pa.table({"document": names, "vector": column}))


class EmbeddingParts:
    """Read access to the vectors of the kept documents in a work store."""

    def __init__(self, store: WorkStore) -> None:
        self._store = store

    @cached_property
    def dimensions(self) -> int:
        """Numbers of a vector."""
        return int(self.part(0).shape[1])

    def part(self, part: int) -> NDArray[np.float16]:
        """Vectors of the kept documents of a part: float16 (n, dim); mapped when the store is local."""
        column = self._store.table(part_name(part))["vector"]
        whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        vectors: NDArray[np.float16] = whole.flatten().to_numpy()
        return vectors.reshape(-1, column.type.list_size)

    def rows(
        self, documents: NDArray[np.int64], parts: DocumentParts, roles: DocumentRoles
    ) -> NDArray[np.float16]:
        """Vectors of kept documents, by document number int64 (n,), any order: float16 (n, dim)."""
        part_of = np.searchsorted(parts.part_offsets, documents, side="right") - 1
        vectors = np.empty((len(documents), self.dimensions), dtype=np.float16)
        for part in np.unique(part_of).tolist():
            here = np.flatnonzero(part_of == part)
            wanted = documents[here] - parts.part_offsets[part]
            kept = roles.kept(part)
            row = np.searchsorted(kept, wanted)
            assert (kept[row] == wanted).all(), "only kept documents are embedded"
            vectors[here] = self.part(part)[row]
        return vectors
