"""The documents of a build on disk: unique, not empty, in parts that are mapped, never all in memory.

FOLDER/part-00000.arrow    texts, uncompressed Arrow, so that any document is read without its neighbours
FOLDER/offsets.npy         int64 (parts+1,): number of the first document of each part
FOLDER/digests.npy         uint64 (n, 2): 16 bytes that identify each text
FOLDER/source.npy          int32 (n,): index of each document's file in sources.json
FOLDER/row.npy             int64 (n,): its line or record there, counted from 1
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.inputs import InputFile
from clustering.keyed_hash import keyed, smallest, text_digest
from clustering.readers import read_documents
from clustering.records import BadInput

PART_BYTES = 64 * 2**20
"""A part ends early at this much text, so that long documents do not make parts that fill the memory."""
MAPPED_PARTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestCounts:
    """What was read and what was dropped."""

    read: int
    empty: int
    duplicates: int
    skipped: int
    """Lines and files that could not be read."""
    examples_of_skipped: tuple[str, ...]
    documents: int
    """What remains (after --max-documents, too)."""
    text_bytes: int


class DocumentStore:
    """Read access to a folder that `ingest` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.part_offsets: NDArray[np.int64] = np.load(folder / "offsets.npy")
        self.digests: NDArray[np.uint64] = np.load(folder / "digests.npy")
        self.source: NDArray[np.int32] = np.load(folder / "source.npy")
        self.row: NDArray[np.int64] = np.load(folder / "row.npy")
        self.source_names: list[str] = json.loads((folder / "sources.json").read_text("utf-8"))
        self._part = lru_cache(maxsize=MAPPED_PARTS)(self._map_part)

    def __len__(self) -> int:
        return int(self.part_offsets[-1])

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return len(self.part_offsets) - 1

    def part_texts(self, part: int) -> list[str]:
        """All texts of one part."""
        texts: list[str] = self._part(part).to_pylist()
        return texts

    def texts(self, documents: NDArray[np.int64]) -> list[str]:
        """The texts of the documents int64 (n,), any order, in that order."""
        part_of = np.searchsorted(self.part_offsets, documents, side="right") - 1
        texts = np.empty(len(documents), dtype=object)
        for part in np.unique(part_of):
            here = np.flatnonzero(part_of == part)
            rows = documents[here] - self.part_offsets[part]
            texts[here] = self._part(int(part)).take(rows).to_pylist()
        return list(texts)

    def _map_part(self, part: int) -> Any:  # a pyarrow string array
        import pyarrow as pa

        with pa.memory_map(str(_part_file(self.folder, part))) as file:
            return pa.ipc.open_file(file).read_all().column("text").combine_chunks()


def ingest(
    files: Sequence[InputFile],
    folder: Path,
    *,
    text_column: str | None,
    bad: BadInput,
    part_documents: int,
    max_documents: int | None = None,
    seed: int = 0,
    known: set[bytes] | None = None,
    advance: Callable[[int], None] = lambda documents: None,
) -> IngestCounts:
    """Read the files, drop empty documents and exact duplicates, write the rest as a `DocumentStore`.

    The first of several equal documents stays. With `max_documents`, those with the smallest keyed hash
    stay, in their order. Digests in `known` count as seen; those of this call are
    added to it. `advance` is called with the number of documents read since the last call.
    """
    for left_over in folder.glob("part-*.arrow"):
        left_over.unlink()
    writer = _Writer(folder, part_documents)
    seen = set() if known is None else known
    read = empty = duplicates = 0
    for source, file in enumerate(files):
        for document in read_documents(file, text_column=text_column, bad=bad):
            read += 1
            if read % 256 == 0:
                advance(256)
            if not document.text or document.text.isspace():
                empty += 1
                continue
            digest = text_digest(document.text)
            if digest in seen:
                duplicates += 1
                continue
            seen.add(digest)
            writer.add(document.text, digest, source, document.row)
    advance(read % 256)
    writer.close([file.name for file in files])
    if max_documents is not None and max_documents < len(DocumentStore(folder)):
        _thin(folder, max_documents, seed, part_documents)
    return IngestCounts(
        read=read,
        empty=empty,
        duplicates=duplicates,
        skipped=bad.skipped,
        examples_of_skipped=tuple(bad.examples),
        documents=len(DocumentStore(folder)),
        text_bytes=sum(path.stat().st_size for path in folder.glob("part-*.arrow")),
    )


class _Writer:
    """Collects documents and writes a part whenever one is full."""

    def __init__(self, folder: Path, part_documents: int) -> None:
        self.folder = folder
        self.part_documents = part_documents
        self.texts: list[str] = []
        self.text_bytes = 0
        self.offsets = [0]
        self.digests = bytearray()
        self.source = array("i")
        self.row = array("q")

    def add(self, text: str, digest: bytes, source: int, row: int) -> None:
        self.texts.append(text)
        self.text_bytes += len(text)
        self.digests += digest
        self.source.append(source)
        self.row.append(row)
        if len(self.texts) >= self.part_documents or self.text_bytes >= PART_BYTES:
            self.write_part()

    def write_part(self) -> None:
        import pyarrow as pa

        if not self.texts:
            return
        batch = pa.record_batch({"text": pa.array(self.texts, pa.large_string())})
        path = _part_file(self.folder, len(self.offsets) - 1)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as out:
            out.write_batch(batch)
        self.offsets.append(self.offsets[-1] + len(self.texts))
        self.texts, self.text_bytes = [], 0

    def close(self, source_names: Sequence[str]) -> None:
        self.write_part()
        np.save(self.folder / "offsets.npy", np.array(self.offsets, dtype=np.int64))
        np.save(
            self.folder / "digests.npy",
            np.frombuffer(bytes(self.digests), dtype="<u8").reshape(-1, 2),
        )
        np.save(self.folder / "source.npy", np.array(self.source, dtype=np.int32))
        np.save(self.folder / "row.npy", np.array(self.row, dtype=np.int64))
        names = json.dumps(list(source_names), ensure_ascii=False)
        (self.folder / "sources.json").write_text(names, encoding="utf-8")


def _thin(folder: Path, max_documents: int, seed: int, part_documents: int) -> None:
    """Rewrite the store with a keyed-hash sample of its documents."""
    store = DocumentStore(folder)
    kept = smallest(keyed(store.digests[:, 0], seed=seed, purpose="sample"), max_documents)
    thin = folder / "thin"
    thin.mkdir(exist_ok=True)
    writer = _Writer(thin, part_documents)
    for begin in range(0, len(kept), part_documents):
        chunk = kept[begin : begin + part_documents]
        for document, text in zip(chunk, store.texts(chunk), strict=True):
            writer.add(
                text,
                store.digests[document].tobytes(),
                int(store.source[document]),
                int(store.row[document]),
            )
    writer.close(store.source_names)
    for path in folder.glob("part-*.arrow"):
        path.unlink()
    for path in thin.iterdir():
        path.replace(folder / path.name)
    thin.rmdir()


def iterate_texts(
    store: DocumentStore, documents: NDArray[np.int64], chunk: int
) -> Iterator[list[str]]:
    """The texts of the documents int64 (n,), `chunk` documents at a time."""
    for begin in range(0, len(documents), chunk):
        yield store.texts(documents[begin : begin + chunk])


def _part_file(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05}.arrow"
