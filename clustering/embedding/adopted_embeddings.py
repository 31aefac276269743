"""Vectors from elsewhere for our documents, joined by id: what the embedding stage does with `--embeddings`.

Where the files are parts of the same documents in the same order (another build of the same input), part
after part is copied. Otherwise ids are joined by sorting hashes on disk, and vectors are brought into the
order of the documents through one file on disk. Either way memory does not grow with the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.embedding.embedding_parts import part_name, publish_vectors
from clustering.embedding.foreign_embeddings import ForeignFile
from clustering.embedding.vector_pieces import Piece, one_length, pieces, unit_rows
from clustering.errors import InputError
from clustering.work.external_sort import ExternalSort
from clustering.work.keyed_hash import text_digest
from clustering.work.work_store import WorkStore

SORT_BYTES = 256 * 2**20
EXAMPLES = 3
"""Ids that an error names."""

_ID = np.dtype([("high", "<u8"), ("low", "<u8"), ("theirs", "<i8"), ("place", "<i8")])
_PAIR = np.dtype([("theirs", "<i8"), ("ours", "<i8")])


class Wanted(Protocol):
    """Documents that need vectors, in parts."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 (parts+1,): where each part begins among the documents."""

    def ids(self, part: int) -> Sequence[str]:
        """Ids of a part, in its order."""

    def name(self, part: int) -> str:
        """Name in the work store under which its vectors go."""


class CorpusDocuments:
    """The kept documents of the corpus, as `EmbedTask` would embed them."""

    def __init__(self, store: WorkStore) -> None:
        self._documents = DocumentParts(store)
        self._roles = DocumentRoles(store, self._documents.part_offsets)
        sizes = [len(self._roles.kept(part)) for part in range(self._documents.num_parts)]
        self.offsets: NDArray[np.int64] = np.cumsum([0, *sizes], dtype=np.int64)

    def ids(self, part: int) -> list[str]:
        """See `Wanted`."""
        ids = self._documents.ids(part)
        return [ids[row] for row in self._roles.kept(part)]

    def name(self, part: int) -> str:
        """See `Wanted`."""
        return part_name(part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopted:
    """What was found."""

    documents: int
    dimensions: int
    ignored: int
    """Vectors whose id no document has."""
    lined_up: bool
    """Whether the files were the parts, so that nothing had to be joined."""


def adopt_embeddings(
    files: Sequence[ForeignFile],
    wanted: Wanted,
    store: WorkStore,
    *,
    remedy: str,
    advance: Callable[[int], None],
) -> Adopted:
    """Publish a vector of unit norm, float16, for every wanted document.

    Args:
        files: The vectors (`find_foreign`).
        wanted: The documents.
        store: Where the vectors go; also has the room on disk for sorting.
        remedy: What the user can do about documents without a vector.
        advance: Called with the documents that got their vector since the last call.

    Raises:
        InputError: Documents without a vector, an id that occurs twice, vectors of different lengths, or one
            that is zero or not finite.
    """
    if _line_up(files, wanted):
        return _copy(files, wanted, store, advance)
    with store.scratch() as scratch:
        pairs, ignored = _join(files, wanted, scratch, remedy)
        documents = int(wanted.offsets[-1])
        gathered = _gather(files, pairs, documents, scratch)
        for part, (begin, end) in enumerate(pairwise(wanted.offsets.tolist())):
            publish_vectors(store, wanted.name(part), wanted.ids(part), gathered[begin:end])
            advance(end - begin)
        return Adopted(
            documents=documents, dimensions=gathered.shape[1], ignored=ignored, lined_up=False
        )


def _line_up(files: Sequence[ForeignFile], wanted: Wanted) -> bool:
    if len(files) != len(wanted.offsets) - 1:
        return False
    return all(
        all(a == b for a, b in zip_longest(chain.from_iterable(file.ids()), wanted.ids(part)))
        for part, file in enumerate(files)
    )


def _copy(
    files: Sequence[ForeignFile],
    wanted: Wanted,
    store: WorkStore,
    advance: Callable[[int], None],
) -> Adopted:
    dimensions = next(piece.vectors.shape[1] for piece in pieces(files))
    documents = 0
    for part, file in enumerate(files):
        found = []
        for piece in pieces([file]):
            dimensions = one_length(dimensions, piece)
            found.append(unit_rows(piece, np.arange(len(piece.vectors))))
        whole = np.concatenate(found) if found else np.empty((0, dimensions), dtype=np.float16)
        publish_vectors(store, wanted.name(part), wanted.ids(part), whole)
        documents += len(whole)
        advance(len(whole))
    return Adopted(documents=documents, dimensions=dimensions, ignored=0, lined_up=True)


def _join(
    files: Sequence[ForeignFile], wanted: Wanted, scratch: Path, remedy: str
) -> tuple[ExternalSort, int]:
    """Which row of theirs, counted through the files, is which document of ours; and how many are none."""
    records = ExternalSort(scratch / "ids", _ID, memory_bytes=SORT_BYTES)
    for part, begin in enumerate(wanted.offsets[:-1].tolist()):
        records.add(_records(wanted.ids(part), theirs=0, begin=begin))
    begin = 0
    for file in files:
        for ids in file.ids():
            records.add(_records(ids, theirs=1, begin=begin))
            begin += len(ids)
    pairs = ExternalSort(scratch / "pairs", _PAIR, memory_bytes=SORT_BYTES)
    missing = _Examples()
    ignored = 0
    for chunk in _whole_groups(records.chunks()):
        first = np.flatnonzero(np.append(True, _differs(chunk[1:], chunk[:-1])))
        group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(chunk))))
        is_theirs = chunk["theirs"] == 1
        theirs = np.bincount(group[is_theirs], minlength=len(first))
        ours = np.bincount(group[~is_theirs], minlength=len(first))
        ignored += int(theirs[ours == 0].sum())
        missing.add(chunk["place"][first[(ours > 0) & (theirs == 0)]], int(ours[theirs == 0].sum()))
        for twice, whose in ((ours, "the documents"), (theirs, "--embeddings")):
            _refuse_twice(chunk, first, (ours > 0) & (theirs > 0) & (twice > 1), whose, wanted)
        both = first[(ours > 0) & (theirs > 0)]
        matched = np.empty(len(both), dtype=_PAIR)
        matched["ours"], matched["theirs"] = chunk["place"][both], chunk["place"][both + 1]
        pairs.add(matched)
    if missing.count:
        theirs_first = next((ids[0] for file in files for ids in file.ids() if ids), "none")
        raise InputError(
            f"--embeddings has no vector for {missing.count:,} of {wanted.offsets[-1]:,} documents: "
            f"{_named(missing.first, wanted)}; its ids are like {theirs_first!r}. Every document needs one, "
            f"under its --id-column or FILE:ROW. {remedy}"
        )
    return pairs, ignored


class _Examples:
    """How many there are, and the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[int] = []

    def add(self, places: NDArray[np.int64], count: int) -> None:
        self.count += count
        self.first = sorted([*self.first, *np.sort(places)[:EXAMPLES].tolist()])[:EXAMPLES]


def _records(ids: Sequence[str], *, theirs: int, begin: int) -> NDArray[Any]:
    digests = np.frombuffer(b"".join(map(text_digest, ids)), dtype="<u8").reshape(-1, 2)
    records = np.empty(len(ids), dtype=_ID)
    records["high"], records["low"], records["theirs"] = digests[:, 0], digests[:, 1], theirs
    records["place"] = begin + np.arange(len(ids))
    return records


def _differs(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    differs: NDArray[np.bool_] = (a["high"] != b["high"]) | (a["low"] != b["low"])
    return differs


def _whole_groups(chunks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Chunks recut so that records of one id are never apart."""
    held = np.empty(0, dtype=_ID)
    for chunk in chunks:
        chunk = np.concatenate([held, chunk])
        last = np.flatnonzero(_differs(chunk[:-1], chunk[-1:]))
        cut = int(last[-1]) + 1 if len(last) else 0
        if cut:
            yield chunk[:cut]
        held = chunk[cut:]
    if len(held):
        yield held


def _refuse_twice(
    chunk: NDArray[Any],
    first: NDArray[np.int64],
    twice: NDArray[np.bool_],
    whose: str,
    wanted: Wanted,
) -> None:
    if twice.any():
        named = _named(chunk["place"][first[twice]][:EXAMPLES].tolist(), wanted)
        raise InputError(
            f"an id occurs more than once in {whose}: {named}. An id must name one document and one vector. "
            "Remove the double, or build with an --id-column that tells documents apart."
        )


def _named(places: Sequence[int], wanted: Wanted) -> str:
    """The ids of documents, by their place among the wanted."""
    offsets = wanted.offsets
    parts = (np.searchsorted(offsets, places, side="right") - 1).tolist()
    return ", ".join(
        repr(wanted.ids(part)[place - int(offsets[part])])
        for part, place in zip(parts, places, strict=True)
    )


def _gather(
    files: Sequence[ForeignFile], pairs: ExternalSort, documents: int, scratch: Path
) -> NDArray[np.float16]:
    """The vectors in the order of the documents, in a file: float16 (documents, dim)."""
    gathered: NDArray[np.float16] | None = None
    dimensions = 0
    for piece, pair in _side_by_side(pieces(files), pairs.chunks()):
        dimensions = one_length(dimensions, piece)
        if gathered is None:
            shape = (documents, dimensions)
            gathered = np.memmap(scratch / "vectors.bin", np.float16, "w+", shape=shape)
        gathered[pair["ours"]] = unit_rows(piece, pair["theirs"] - piece.begin)
    assert gathered is not None, "there is a document, and every document has a vector"
    return gathered


def _side_by_side(
    pieces: Iterator[Piece], chunks: Iterator[NDArray[Any]]
) -> Iterator[tuple[Piece, NDArray[Any]]]:
    """Each piece that is needed, with the pairs that need it; both come in the order of the files."""
    piece = next(pieces)
    for chunk in chunks:
        done = 0
        while done < len(chunk):
            end = piece.begin + len(piece.vectors)
            until = int(np.searchsorted(chunk["theirs"], end))
            if until > done:
                yield piece, chunk[done:until]
            done = until
            if done < len(chunk):
                piece = next(pieces)
