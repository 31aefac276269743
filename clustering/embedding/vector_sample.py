"""A random sample of the vectors in a folder or under an address, in two passes and bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clustering.embedding.foreign_embeddings import find_foreign
from clustering.embedding.vector_pieces import one_length, pieces, unit_rows
from clustering.work.keyed_hash import keyed


def sample_vectors(place: Path | str, count: int, *, seed: int) -> NDArray[np.float16]:
    """About `count` vectors, or all where there are fewer: float16 (n, dim), scaled to unit norm.

    Raises:
        InputError: There are no files with vectors, or one cannot be used; vectors of different lengths, or
            one that is zero or not finite.
    """
    files = find_foreign(place)
    total = sum(len(ids) for file in files for ids in file.ids())
    share = count / max(1, total)
    chosen, dimensions = [], 0
    for piece in pieces(files):
        dimensions = one_length(dimensions, piece)
        numbers = np.arange(len(piece.vectors))
        keys = keyed((piece.begin + numbers).astype(np.uint64), seed=seed, purpose="suggest")
        taken = numbers[keys < np.uint64(int(share * 2.0**64))] if share < 1 else numbers
        chosen.append(unit_rows(piece, taken))
    return np.concatenate(chosen) if chosen else np.empty((0, 0), dtype=np.float16)
