"""What each document is for: the corpus, held-out validation, or nothing (it belongs to a target set).

Roles are worked out from the digests after embedding, so that another target set or held-out share never
costs the embeddings, which are by far the dearest part of a build.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clustering.config import MAX_HELDOUT_DOCUMENTS
from clustering.errors import BuildError
from clustering.keyed_hash import keyed


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """Disjoint sets of documents, as ascending numbers in the document store."""

    corpus: NDArray[np.int64]
    heldout: NDArray[np.int64]
    """In the order of their keyed hash."""
    in_targets: NDArray[np.int64]
    """Equal to a document of a target set, and therefore dropped."""


def assign_roles(
    digests: NDArray[np.uint64],
    target_digests: NDArray[np.uint64],
    *,
    heldout_share: float,
    seed: int,
) -> Roles:
    """Divide the documents.

    Args:
        digests: uint64 (n, 2): one row per document.
        target_digests: uint64 (m, 2): one row per document of all target sets.
        heldout_share: Share of the documents to hold out; at most `MAX_HELDOUT_DOCUMENTS` are.
        seed: Decides which.

    Raises:
        BuildError: Nothing is left for the corpus.
    """
    in_targets = np.isin(digests[:, 0], target_digests[:, 0])
    known = {row.tobytes() for row in target_digests}
    for document in np.flatnonzero(in_targets):  # half a digest agrees: compare all of it
        in_targets[document] = digests[document].tobytes() in known
    rest = np.flatnonzero(~in_targets)
    count = min(round(heldout_share * len(rest)), MAX_HELDOUT_DOCUMENTS)
    order = np.argsort(keyed(digests[rest, 0], seed=seed, purpose="heldout"), kind="stable")
    heldout, corpus = rest[order[:count]], np.sort(rest[order[count:]])
    if len(corpus) == 0:
        raise BuildError(
            f"no document is left for the corpus: of {len(digests):,} unique documents, {in_targets.sum():,} "
            f"are in a target set and {count:,} are held out. Give more text, or other targets."
        )
    return Roles(corpus=corpus, heldout=heldout, in_targets=np.flatnonzero(in_targets))
