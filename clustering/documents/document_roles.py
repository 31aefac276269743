"""What each document is for: the corpus, held-out validation, or nothing (it belongs to a target set).

Roles are worked out from the digests after embedding, so that another target set or held-out share never
costs the embeddings, which are by far the dearest part of a build.

    roles/role.npy       uint8 (n,): CORPUS, HELDOUT, TARGET or DROPPED
    roles/heldout.npy    int64 (m,): held-out documents in the order of their keyed hash
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.document_parts import DocumentParts
from clustering.documents.duplicates import COPIES
from clustering.errors import BuildError
from clustering.work.keyed_hash import keyed
from clustering.work.smallest_keys import SmallestKeys
from clustering.work.work_store import WorkStore

ROLE = "roles/role.npy"
HELDOUT_DOCUMENTS = "roles/heldout.npy"
CORPUS, HELDOUT, TARGET, DROPPED = range(4)
MAX_HELDOUT_DOCUMENTS = 2_000
"""More would not make the generic validation loss more certain in any way that matters."""


class DocumentRoles:
    """Which documents of a part take part in what; arrays stay on disk."""

    def __init__(self, store: WorkStore, part_offsets: NDArray[np.int64]) -> None:
        self._store = store
        self._offsets = part_offsets
        self._array = lru_cache(maxsize=2)(store.array)  # of which a distant store sends all

    def copies(self, part: int) -> NDArray[np.uint32]:
        """uint32 (n,): how often each text occurs in the input; 0 for documents that were dropped."""
        return self._of_part(COPIES, part)

    def role(self, part: int) -> NDArray[np.uint8]:
        """uint8 (n,): CORPUS, HELDOUT, TARGET or DROPPED."""
        return self._of_part(ROLE, part)

    def kept(self, part: int) -> NDArray[np.int64]:
        """Rows of the part that are embedded and tokenised: all but duplicates and what a sample left out."""
        return np.flatnonzero(self.copies(part))

    def corpus(self, part: int) -> NDArray[np.int64]:
        """Rows of the part that the corpus is made of."""
        return np.flatnonzero(self.role(part) == CORPUS)

    def heldout(self) -> NDArray[np.int64]:
        """Held-out documents, in the order of their keyed hash."""
        return self._store.array(HELDOUT_DOCUMENTS)

    def _of_part(self, name: str, part: int) -> NDArray[Any]:
        return self._array(name)[self._offsets[part] : self._offsets[part + 1]]


def assign_roles(
    store: WorkStore,
    documents: DocumentParts,
    target_digests: NDArray[np.uint64],
    *,
    heldout_share: float,
    seed: int,
) -> dict[str, int]:
    """Publish the roles; returns how many documents are in the `corpus`, `heldout` and `in_targets`.

    Args:
        store: The work store, with the stages `read` and `dedupe` done.
        documents: The documents.
        target_digests: uint64 (m, 2): one row per document of all target sets.
        heldout_share: Share of the documents to hold out; at most `MAX_HELDOUT_DOCUMENTS` are.
        seed: Decides which.

    Raises:
        BuildError: Nothing is left for the corpus.
    """
    known = {row.tobytes() for row in target_digests}
    drawn = DocumentRoles(store, documents.part_offsets)
    smallest = SmallestKeys(MAX_HELDOUT_DOCUMENTS)
    with store.scratch() as scratch:
        role = np.memmap(
            scratch / "role.bin", dtype=np.uint8, mode="w+", shape=(max(1, len(documents)),)
        )[: len(documents)]
        candidates = in_targets = 0
        for part in range(documents.num_parts):
            begin, end = documents.part_offsets[part : part + 2]
            digests, kept = documents.digests(part), drawn.kept(part)
            of_part = np.full(end - begin, DROPPED, dtype=np.uint8)
            is_target = np.isin(digests[kept, 0], target_digests[:, 0])
            for row in np.flatnonzero(is_target):  # half a digest agrees: compare all of it
                is_target[row] = digests[kept[row]].tobytes() in known
            of_part[kept] = np.where(is_target, TARGET, CORPUS)
            role[begin:end] = of_part
            free = kept[~is_target]
            smallest.add(keyed(digests[free, 0], seed=seed, purpose="heldout"), begin + free)
            candidates += len(free)
            in_targets += int(is_target.sum())
        count = min(round(heldout_share * candidates), MAX_HELDOUT_DOCUMENTS)
        heldout = smallest.documents()[:count]
        if candidates == count:
            raise BuildError(
                f"no document is left for the corpus: of {candidates + in_targets:,} unique documents, "
                f"{in_targets:,} are in a target set and {count:,} are held out. Give more text, other "
                "targets, or a smaller --heldout-share."
            )
        role[heldout] = HELDOUT
        store.publish_array(ROLE, role)
        store.publish_array(HELDOUT_DOCUMENTS, heldout)
    return {"corpus": candidates - count, "heldout": count, "in_targets": in_targets}
