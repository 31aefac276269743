"""New documents on their way into a corpus: read, compared with what is there, embedded, put into leaves.

    FOLDER/part-00000.arrow   text, source, row, digest, leaf, distance, tokens: one row per new document

A part is published by rename, and an interrupted addition goes on at the first that is missing. Reading and
comparing is repeated then; embedding, which takes nearly all of the time, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.embedder import Embedder
from clustering.inputs import InputFile
from clustering.keyed_hash import digest_number, text_digest
from clustering.known_texts import KnownTexts
from clustering.packing import Tokens, join_documents
from clustering.readers import read_documents
from clustering.records import BadInput
from clustering.stages import published
from clustering.tokenization import CorpusTokenizer
from clustering.tree import Tree

_READ_DOCUMENTS = 1_024
_PART_CHARACTERS = 2**24
_CHUNK_DOCUMENTS = 16_384


@dataclass(kw_only=True, slots=True)
class ReadCounts:
    """What was read, and what was left out of it."""

    read: int = 0
    empty: int = 0
    known: int = 0
    """In the corpus already, in its held-out part or target sets, or earlier among the new ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fresh:
    """A document that is not in the corpus yet."""

    text: str
    source: int
    """Index of its file."""
    row: int
    digest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartMaker:
    """Makes a part of new documents: the same part whenever it is made."""

    embedder: Callable[[], Embedder]
    """Loads the model when it is first needed."""
    tree: Tree
    tokenizer: CorpusTokenizer

    def __call__(self, documents: Sequence[Fresh]) -> Any:
        """A `pyarrow.Table` with a row for each document."""
        import pyarrow as pa

        texts = [document.text for document in documents]
        # As the build stores them, so that a document goes where the build would have put it.
        vectors = self.embedder().embed(texts).astype(np.float16).astype(np.float32)
        leaf = self.tree.assign(vectors)
        distance = 1.0 - np.einsum("nd,nd->n", vectors, self.tree.centroids[-1][leaf])
        tokens, lengths = self.tokenizer.encode(texts)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        return pa.table(
            {
                "text": pa.array(texts, pa.large_string()),
                "source": pa.array([document.source for document in documents], pa.int32()),
                "row": pa.array([document.row for document in documents], pa.int64()),
                "digest": pa.array([document.digest for document in documents], pa.uint64()),
                "leaf": pa.array(leaf, pa.int32()),
                "distance": pa.array(distance.astype(np.float32)),
                "tokens": pa.LargeListArray.from_arrays(pa.array(ends), pa.array(tokens)),
            }
        )


def make_parts(
    files: Sequence[InputFile],
    folder: Path,
    make: PartMaker,
    *,
    known: KnownTexts,
    text_column: str | None,
    bad: BadInput,
    part_documents: int,
    advance: Callable[[int], None],
) -> ReadCounts:
    """Read the files and write a part for every `part_documents` new documents; parts that are there stay.

    `advance` gets the number of new documents since the last call. Raises `InputError` for bad input.
    """
    import pyarrow as pa

    counts = ReadCounts()
    for number, documents in enumerate(
        _in_parts(_fresh(files, known, text_column, bad, counts), part_documents)
    ):
        path = _part_file(folder, number)
        if not path.is_file():
            table = make(documents)
            with (
                published(path) as partial,
                pa.OSFile(str(partial), "wb") as file,
                pa.ipc.new_file(file, table.schema) as out,
            ):
                out.write_table(table)
        advance(len(documents))
    return counts


class AddedDocuments:
    """Read access to a folder of parts. Columns of numbers are read whole, texts and tokens as needed."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        self._parts = []
        for path in sorted(folder.glob("part-*.arrow")):
            with pa.memory_map(str(path)) as file:
                self._parts.append(pa.ipc.open_file(file).read_all().combine_chunks())
        self._begins = np.cumsum([0, *(part.num_rows for part in self._parts)])

    def __len__(self) -> int:
        return int(self._begins[-1])

    def column(self, name: str) -> NDArray[Any]:
        """All values of a column of numbers: (n,)."""
        values: NDArray[Any] = np.concatenate(
            [part.column(name).to_numpy() for part in self._parts]
        )
        return values

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, its separator not counted: int64 (n,)."""
        return np.concatenate([np.diff(self._tokens(part)[0]) for part in range(len(self._parts))])

    def texts(self, documents: NDArray[np.int64]) -> list[str]:
        """The texts of the documents int64 (n,), in that order."""
        found = np.empty(len(documents), dtype=object)
        for part, here, rows in self._located(documents):
            column = self._parts[part].column("text").chunk(0)
            found[here] = column.take(rows).to_pylist()
        return list(found)

    def stream(self, documents: NDArray[np.int64], separator: int) -> Iterator[Tokens]:
        """Tokens of the documents int64 (n,) in that order, each followed by the separator, in chunks."""
        for begin in range(0, len(documents), _CHUNK_DOCUMENTS):
            chunk = documents[begin : begin + _CHUNK_DOCUMENTS]
            lengths = self.lengths[chunk]
            ends = np.cumsum(lengths)
            gathered: Tokens | None = None
            for part, here, rows in self._located(chunk):
                offsets, tokens = self._tokens(part)
                if gathered is None:
                    gathered = np.empty(int(ends[-1]), dtype=tokens.dtype)
                for place, row in zip(here.tolist(), rows.tolist(), strict=True):
                    end = ends[place]
                    gathered[end - lengths[place] : end] = tokens[offsets[row] : offsets[row + 1]]
            assert gathered is not None, "a chunk has documents, and they are in some part"
            yield join_documents(gathered, ends - lengths, lengths, separator)

    def _tokens(self, part: int) -> tuple[NDArray[np.int64], Tokens]:
        column = self._parts[part].column("tokens").chunk(0)
        return column.offsets.to_numpy(), column.values.to_numpy()

    def _located(
        self, documents: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Per part that is concerned: its number, which of `documents` are in it, and their rows."""
        part_of = np.searchsorted(self._begins, documents, side="right") - 1
        for part in np.unique(part_of).tolist():
            here = np.flatnonzero(part_of == part)
            yield part, here, documents[here] - self._begins[part]


def _fresh(
    files: Sequence[InputFile],
    known: KnownTexts,
    text_column: str | None,
    bad: BadInput,
    counts: ReadCounts,
) -> Iterator[Fresh]:
    """The documents that are new, in the order of the input."""
    waiting: list[Fresh] = []

    def admitted() -> list[Fresh]:
        new = known.admit(np.array([document.digest for document in waiting], dtype=np.uint64))
        counts.known += len(waiting) - int(new.sum())
        return [document for document, is_new in zip(waiting, new, strict=True) if is_new]

    for source, file in enumerate(files):
        for document in read_documents(file, text_column=text_column, bad=bad):
            counts.read += 1
            if not document.text or document.text.isspace():
                counts.empty += 1
                continue
            digest = digest_number(text_digest(document.text))
            waiting.append(
                Fresh(text=document.text, source=source, row=document.row, digest=digest)
            )
            if len(waiting) == _READ_DOCUMENTS:
                yield from admitted()
                waiting = []
    yield from admitted()


def _in_parts(documents: Iterator[Fresh], part_documents: int) -> Iterator[list[Fresh]]:
    """Groups of `part_documents`, or fewer where they are long."""
    part: list[Fresh] = []
    characters = 0
    for document in documents:
        part.append(document)
        characters += len(document.text)
        if len(part) == part_documents or characters >= _PART_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def _part_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05}.arrow"
