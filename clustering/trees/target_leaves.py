"""The leaf of every train document of a target set, kept beside the set's histogram over the leaves.

The histogram says where the set as a whole lies. With the leaves one can say what a part of it would have
shown: documents follow each other in the train blocks in the same order, each ended by the separator.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import Corpus, CorpusError
from pipeline.corpus.manifest import FileEntry, file_entry


def write_target_leaves(corpus: Path, name: str, leaves: NDArray[np.int64]) -> FileEntry:
    """Write the leaves (n,) of the n train documents of target `name`; an extra of the manifest."""
    file = _file(name)
    np.save(corpus / file, leaves.astype(np.int32))
    return file_entry(corpus, file)


def read_target_leaves(corpus: Corpus, name: str) -> NDArray[np.int32]:
    """The leaf of each train document of target `name`: int32 (n,).

    Raises `CorpusError` for a corpus that was built before they were kept.
    """
    content = corpus.extra(_file(name))
    if content is None:
        raise CorpusError(
            f"{corpus.address} does not say which leaf each example of target {name!r} belongs to. Build "
            "it again: finished stages are kept, and only the last one is repeated."
        )
    leaves: NDArray[np.int32] = np.load(io.BytesIO(content), allow_pickle=False)
    return leaves


def _file(name: str) -> str:
    return f"targets/{name}.leaves.npy"
