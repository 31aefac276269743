"""The embedding stage, and read access to what it leaves.

    FOLDER/part-00000.npy    float16 (n, dim), unit norm; one per part of the document store

Parts are published by rename: a build that is killed has whole parts on disk and continues at the next.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents import DocumentStore
from clustering.embedder import Embedder
from clustering.stages import published

WINDOW = 1_024
"""Documents per call of the embedder: sorted by length together, so that batches carry little padding."""
MAPPED_PARTS = 256


class EmbeddingStore:
    """Vectors of the documents of a store, gathered out of mapped parts."""

    def __init__(self, folder: Path, part_offsets: NDArray[np.int64]) -> None:
        self.folder = folder
        self.part_offsets = part_offsets
        self._part = lru_cache(maxsize=MAPPED_PARTS)(self._map_part)

    def __len__(self) -> int:
        return int(self.part_offsets[-1])

    def rows(self, documents: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of the documents int64 (n,), any order: float32 (n, dim)."""
        part_of = np.searchsorted(self.part_offsets, documents, side="right") - 1
        first = self._part(0)
        vectors = np.empty((len(documents), first.shape[1]), dtype=np.float32)
        for part in np.unique(part_of):
            here = np.flatnonzero(part_of == part)
            vectors[here] = self._part(int(part))[documents[here] - self.part_offsets[part]]
        return vectors

    def _map_part(self, part: int) -> NDArray[np.float16]:
        mapped: NDArray[np.float16] = np.load(_part_file(self.folder, part), mmap_mode="r")
        return mapped


def embed_documents(
    documents: DocumentStore,
    load: Callable[[], Embedder],
    folder: Path,
    *,
    advance: Callable[[int], None],
    skip: Callable[[int], None],
) -> None:
    """Embed every part that is not there yet; the model is loaded only when there is one.

    `advance` is called with the documents embedded since the last call, `skip` with those found finished.
    """
    embedder: Embedder | None = None
    for part in range(documents.num_parts):
        path = _part_file(folder, part)
        if path.is_file():
            skip(int(documents.part_offsets[part + 1] - documents.part_offsets[part]))
            continue
        embedder = embedder or load()
        save_vectors(path, embed_texts(documents.part_texts(part), embedder, advance))


def embed_texts(
    texts: list[str], embedder: Embedder, advance: Callable[[int], None]
) -> NDArray[np.float16]:
    """Embed texts window by window: float16 (n, dim)."""
    windows = []
    for begin in range(0, len(texts), WINDOW):
        window = texts[begin : begin + WINDOW]
        windows.append(embedder.embed(window).astype(np.float16))
        advance(len(window))
    return np.concatenate(windows)


def save_vectors(path: Path, vectors: NDArray[Any]) -> None:
    """Save an array so that the file is there complete or not at all."""
    with published(path) as partial, partial.open("wb") as file:
        np.save(file, vectors)


def _part_file(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05}.npy"
