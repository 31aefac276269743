"""Vectors that were made elsewhere, a piece at a time, checked as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.embedding.foreign_embeddings import ForeignFile
from clustering.errors import InputError


@dataclass(frozen=True, slots=True)
class Piece:
    """Some vectors of a file, and where they begin: counted through all files, and in this one."""

    file: ForeignFile
    begin: int
    begin_in_file: int
    vectors: NDArray[np.floating[Any]]


def pieces(files: Sequence[ForeignFile]) -> Iterator[Piece]:
    """All vectors, in the order of the files; a piece holds at least one."""
    begin = 0
    for file in files:
        begin_in_file = begin
        for vectors in file.vectors():
            if len(vectors):
                yield Piece(file, begin, begin - begin_in_file, vectors)
                begin += len(vectors)


def one_length(dimensions: int, piece: Piece) -> int:
    """Numbers in the vectors of a piece. Raises `InputError` when those before (0: none) had others."""
    length = int(piece.vectors.shape[1])
    if dimensions not in (0, length):
        raise InputError(
            f"{piece.file.name}: vectors of {length} numbers, and of {dimensions} in the files before; all "
            "vectors must come from one model. Give a folder with the vectors of one."
        )
    return length


def unit_rows(piece: Piece, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """The vectors in these rows of a piece, of unit norm. Raises `InputError` when one points nowhere."""
    vectors = piece.vectors[rows].astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(bad):
        row = piece.begin_in_file + int(rows[bad[0]])
        raise InputError(
            f"{piece.file.name}: the vector in row {row} has the norm {norms[bad[0], 0]}, and "
            f"{len(bad) - 1:,} more near it are zero or not finite; a vector must point somewhere. "
            "Embed these documents again."
        )
    unit: NDArray[np.float16] = (vectors / norms).astype(np.float16)
    return unit
