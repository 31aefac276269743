"""What a tokenizer is trained on: a sample of the corpus that no order of files changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.work.keyed_hash import keyed
from clustering.work.smallest_keys import SmallestKeys

TRAINING_CHARACTERS = 32 * 2**20
"""A byte-level BPE is trained on at most this much text: more changes few merges and takes long."""
MAX_DOCUMENTS = 2**18
CHUNK_DOCUMENTS = 2**15
"""Looked at together: they lie in all parts, and of an object store each is fetched twice for a chunk."""


def training_texts(
    documents: DocumentParts,
    roles: DocumentRoles,
    seed: int,
    advance: Callable[[int], None],
) -> Iterator[str]:
    """Texts of corpus documents by ascending keyed hash, up to `TRAINING_CHARACTERS`."""
    sample = SmallestKeys(MAX_DOCUMENTS)
    for part in range(documents.num_parts):
        rows = roles.corpus(part)
        keys = keyed(documents.digests(part)[rows, 0], seed=seed, purpose="tokenizer")
        sample.add(keys, documents.part_offsets[part] + rows)
    chosen = sample.documents()
    left = TRAINING_CHARACTERS
    for begin in range(0, len(chosen), CHUNK_DOCUMENTS):
        chunk = chosen[begin : begin + CHUNK_DOCUMENTS]
        ends = np.cumsum(documents.lengths(chunk))
        for text in documents.texts(chunk[: np.searchsorted(ends, left) + 1]):
            yield text[:left]
            advance(1)
            left -= len(text)
        if left <= 0:
            return
