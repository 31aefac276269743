"""Which documents are new: not in the corpus, its held-out part or its targets, and the first among equals.

In the stages `dedupe` and `roles` of a build: what is new is kept, and all of it is for the corpus.
"""

from __future__ import annotations

import numpy as np

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import CORPUS, DROPPED, ROLE
from clustering.documents.duplicates import COPIES
from clustering.documents.known_texts import KnownTexts
from clustering.work.work_store import WorkStore


def find_new(store: WorkStore, documents: DocumentParts, known: KnownTexts) -> int:
    """Publish which documents are new, as `COPIES`; returns how many.

    Args:
        store: The work store, with the stage `read` done.
        documents: The documents.
        known: What is in the corpus; learns the new ones.
    """
    portions = [known.admit(documents.digests(part)[:, 0]) for part in range(documents.num_parts)]
    new = np.concatenate([np.empty(0, dtype=np.bool_), *portions])
    store.publish_array(COPIES, new.astype(np.uint32))
    return int(new.sum())


def keep_new(store: WorkStore) -> int:
    """Publish that all new documents are for the corpus, as `ROLE`; returns how many they are."""
    new = store.array(COPIES) > 0
    store.publish_array(ROLE, np.where(new, CORPUS, DROPPED).astype(np.uint8))
    return int(new.sum())
