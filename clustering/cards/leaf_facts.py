"""What is known about every leaf, from all parts: memory grows with the leaves, not the documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.describe_task import ROW, counts_name, described_name, ranks, standing
from clustering.cards.terms import count_terms, documents_per_leaf, find_terms
from clustering.cards.writing import count_writing
from clustering.documents.document_parts import DocumentParts
from clustering.work.work_store import WorkStore

GATHERED_ROWS = 1_000_000
"""Rows of parts that are held before they are thinned."""
MAX_LANGUAGE_DOCUMENTS = 32_768
"""Documents whose language and scripts are told, over all leaves; every leaf keeps at least one."""
MAX_LANGUAGE_DOCUMENTS_PER_LEAF = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafFacts:
    """What cards are made of; the rows of the matrices may be added up over leaves."""

    documents: NDArray[np.int64]
    """int64 (num_leaves,)."""
    tokens: NDArray[np.int64]
    """int64 (num_leaves,)."""
    copies: NDArray[np.int64]
    """int64 (num_leaves,): how often the documents occurred in the input, duplicates included."""
    sources: sparse.csr_matrix
    """int64 (num_leaves, sources): documents."""
    terms: sparse.csr_matrix
    """float32 (num_leaves, terms): estimated documents."""
    term_names: list[str]
    languages: sparse.csr_matrix
    """float32 (num_leaves, languages): estimated documents."""
    language_names: list[str]
    scripts: sparse.csr_matrix
    """float32 (num_leaves, len(SCRIPTS)): estimated letters at the beginnings of documents."""
    standing: NDArray[Any]
    """ROW (n,) by (leaf, key, document): the documents that stand for their leaves."""


def gather_facts(
    store: WorkStore,
    documents: DocumentParts,
    num_leaves: int,
    advance: Callable[[int], None],
) -> LeafFacts:
    """Bring the parts together, and read the texts of the documents that stand for their leaves.

    `advance` is told how many texts were read: for their terms, some of them before to find the terms, and
    for their language.
    """

    limit = documents_per_leaf(num_leaves)
    sums = np.zeros((3, num_leaves), dtype=np.int64)
    sources = sparse.csr_matrix((num_leaves, len(documents.source_names)), dtype=np.int64)
    kept: list[NDArray[Any]] = []
    for part in range(documents.num_parts):
        counts = store.table(counts_name(part))
        leaf, source = counts["leaf"].to_numpy(), counts["source"].to_numpy()
        for total, name in zip(sums, ("documents", "tokens", "copies"), strict=True):
            np.add.at(total, leaf, counts[name].to_numpy())
        here = (counts["documents"].to_numpy(), (leaf, source))
        sources += sparse.csr_matrix(here, shape=sources.shape)
        kept.append(_rows(store.table(described_name(part))))
        if sum(map(len, kept[1:])) > GATHERED_ROWS:
            kept = [standing(np.concatenate(kept), limit)]
    rows = standing(np.concatenate([np.empty(0, dtype=ROW), *kept]), limit)
    rank = ranks(rows["leaf"])
    counted, leaf, weight = _sample(rows, rank < limit, sums[0])
    told = rank < min(limit, language_documents_per_leaf(num_leaves))
    with documents.at_hand(counted) as read:

        def texts(chosen: NDArray[np.int64]) -> list[str]:
            advance(len(chosen))
            return read(chosen)

        term_names = find_terms(texts, counted)
        terms = count_terms(texts, counted, leaf, weight, term_names)
        languages, language_names, scripts = count_writing(texts, *_sample(rows, told, sums[0]))
    return LeafFacts(
        documents=sums[0],
        tokens=sums[1],
        copies=sums[2],
        sources=sources,
        terms=terms,
        term_names=term_names,
        languages=languages,
        language_names=language_names,
        scripts=scripts,
        standing=rows,
    )


def language_documents_per_leaf(num_leaves: int) -> int:
    """Of how many documents of a leaf language and scripts are told."""
    most = MAX_LANGUAGE_DOCUMENTS // max(1, num_leaves)
    return int(np.clip(most, 1, MAX_LANGUAGE_DOCUMENTS_PER_LEAF))


def _sample(
    rows: NDArray[Any], chosen: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Documents and leaves of the chosen rows, and per leaf for how many documents each stands."""
    leaf = rows["leaf"][chosen].astype(np.int64)
    return rows["document"][chosen], leaf, documents_per_chosen(leaf, sizes)


def documents_per_chosen(leaf: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """For how many documents of each leaf one of those chosen in it stands: float32 (num_leaves,).

    Args:
        leaf: int64 (n,): leaves of the chosen documents.
        sizes: int64 (num_leaves,): documents of each leaf.
    """
    weight: NDArray[np.float32] = sizes / np.maximum(1, np.bincount(leaf, minlength=len(sizes)))
    return weight.astype(np.float32)


def _rows(table: Any) -> NDArray[Any]:
    rows = np.empty(table.num_rows, dtype=ROW)
    for name in ROW.names or ():
        rows[name] = table[name].to_numpy()
    return rows
