"""Keywords of a domain: class-based TF-IDF over term counts that are kept per leaf.

A domain of any granularity is a range of leaves, so its counts are a sum of rows: counting once per
leaf gives keywords at every k. Source of the weight: M. Grootendorst, "BERTopic: Neural topic
modeling with a class-based TF-IDF procedure" (arXiv 2203.05794).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MAX_TERMS = 50_000
"""Vocabulary size: bounds the width of the counts."""
MAX_DOCUMENTS_PER_LEAF = 256
MAX_DOCUMENTS = 400_000
"""Documents that are counted over all leaves; every leaf keeps at least one."""
VOCABULARY_DOCUMENTS = 20_000
CHARACTERS_PER_DOCUMENT = 4_000
DOCUMENTS_PER_READ = 1_024

# Letters only, so that identifiers fall apart into words; scripts without spaces count in pairs.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
TERM_PATTERN = rf"[{_UNSPACED}]{{2}}|[^\W\d_{_UNSPACED}]{{2,30}}"

Texts = Callable[[NDArray[np.int64]], list[str]]


def count_terms(
    texts: Texts, document_leaf: NDArray[np.int64], num_leaves: int
) -> tuple[sparse.csr_matrix, list[str]]:
    """Estimate how often each term occurs in each leaf.

    Args:
        texts: Returns the texts of the given documents (ascending indices).
        document_leaf: int64 (n,), ascending: the leaf of each document.
        num_leaves: Number of leaves; leaves without documents give empty rows.

    Returns:
        Counts, float32 CSR of shape (num_leaves, num_terms), and the terms in column order. Large
        leaves are counted on a sample and scaled up, so that rows may be added.
    """
    chosen, weight = _sample(document_leaf, num_leaves)
    return count_sample(texts, chosen, document_leaf[chosen], weight)


def count_sample(
    texts: Texts,
    chosen: NDArray[np.int64],
    leaf: NDArray[np.int64],
    weight: NDArray[np.float32],
) -> tuple[sparse.csr_matrix, list[str]]:
    """Count the terms of documents that stand for others.

    Args:
        texts: Returns the texts of the given documents.
        chosen: int64 (n,): the documents.
        leaf: int64 (n,): the leaf of each.
        weight: float32 (num_leaves,): for how many documents one of each leaf stands.

    Returns:
        As `count_terms`.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    num_leaves = len(weight)
    step = max(1, -(-len(chosen) // VOCABULARY_DOCUMENTS))
    vectorizer = CountVectorizer(
        token_pattern=TERM_PATTERN, stop_words="english", max_features=MAX_TERMS, dtype=np.float32
    )
    try:
        vectorizer.fit(text for batch in _batches(chosen[::step]) for text in _read(texts, batch))
    except ValueError:  # scikit-learn's answer to texts without a single word
        return sparse.csr_matrix((num_leaves, 0), dtype=np.float32), []
    rows, columns, values = [], [], []
    begin = 0
    for batch in _batches(chosen):
        counts = vectorizer.transform(_read(texts, batch)).tocoo()
        leaf_of_count = leaf[begin + counts.row]
        rows.append(leaf_of_count)
        columns.append(counts.col)
        values.append(counts.data * weight[leaf_of_count])
        begin += len(batch)
    terms = [str(term) for term in vectorizer.get_feature_names_out()]
    coordinates = (np.concatenate(rows), np.concatenate(columns))
    total = sparse.csr_matrix(
        (np.concatenate(values).astype(np.float32), coordinates), shape=(num_leaves, len(terms))
    )
    total.sum_duplicates()
    return total, terms


def documents_per_leaf(num_leaves: int) -> int:
    """How many documents of a leaf are counted."""
    return int(np.clip(MAX_DOCUMENTS // max(num_leaves, 1), 1, MAX_DOCUMENTS_PER_LEAF))


def sum_leaves(counts: sparse.csr_matrix, leaf_bounds: NDArray[np.int64]) -> sparse.csr_matrix:
    """Add the rows of each domain: (num_leaves, m) to (k, m), for `leaf_bounds` of shape (k+1,)."""
    num_domains = len(leaf_bounds) - 1
    domain = np.repeat(np.arange(num_domains), np.diff(leaf_bounds))
    ones = np.ones(len(domain), dtype=counts.dtype)
    indicator = sparse.csr_matrix(
        (ones, (domain, np.arange(len(domain)))), shape=(num_domains, counts.shape[0])
    )
    return (indicator @ counts).tocsr()


def sibling_keywords(
    counts: sparse.csr_matrix, terms: list[str], parents: NDArray[np.int64], *, top: int = 10
) -> list[list[str]]:
    """The `top` terms of each row by class-based TF-IDF against its siblings.

    What tells a fine domain apart is not its subject, which its siblings share. A domain without siblings
    is its parent, and is told apart as that is: among all.

    Args:
        counts: (k, terms).
        terms: Names of the columns.
        parents: int64 (k,), non-decreasing.
        top: How many.
    """
    if not counts.shape[0]:
        return []
    bounds = np.flatnonzero(np.append([True], parents[1:] != parents[:-1])).tolist()
    if len(bounds) == 1:
        return class_keywords(counts, terms, top=top)
    of_parents = class_keywords(
        sum_leaves(counts, np.array([*bounds, len(parents)])), terms, top=top
    )
    found: list[list[str]] = []
    for number, (begin, end) in enumerate(zip(bounds, [*bounds[1:], len(parents)], strict=True)):
        if end - begin == 1:
            found.append(of_parents[number])
        else:
            found.extend(class_keywords(counts[begin:end], terms, top=top))
    return found


def class_keywords(
    counts: sparse.csr_matrix, terms: list[str], *, top: int = 10
) -> list[list[str]]:
    """The `top` terms of each row by class-based TF-IDF, best first.

    The weight of term x in class c is tf(x, c) * log(1 + A / f(x)): tf is the share of x among the
    terms of c, f(x) its count over all classes, A the mean count of terms per class. A plural is
    left out when its singular is there, and the other way round.
    """
    if not counts.shape[0] or not terms:
        return [[] for _ in range(counts.shape[0])]
    total_per_term = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    total_per_class = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    rarity = np.log1p(total_per_class.mean() / np.maximum(total_per_term, 1e-12))
    keywords = []
    for row in range(counts.shape[0]):
        begin, end = counts.indptr[row], counts.indptr[row + 1]
        columns = counts.indices[begin:end]
        weights = counts.data[begin:end] * rarity[columns]
        best = columns[np.lexsort((columns, -weights))[: 2 * top]]
        keywords.append(_without_plurals([terms[column] for column in best])[:top])
    return keywords


def _without_plurals(terms: list[str]) -> list[str]:
    kept: list[str] = []
    for term in terms:
        if term + "s" not in kept and term.removesuffix("s") not in kept:
            kept.append(term)
    return kept


def _sample(
    document_leaf: NDArray[np.int64], num_leaves: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Evenly spaced documents of every leaf, whose order is random, and the scale per leaf."""
    limit = documents_per_leaf(num_leaves)
    size = np.bincount(document_leaf, minlength=num_leaves)
    kept = np.minimum(size, limit)
    start = np.concatenate(([0], np.cumsum(size)))[:-1]
    leaf = np.repeat(np.arange(num_leaves), kept)
    rank = np.arange(len(leaf)) - np.repeat(np.cumsum(kept) - kept, kept)
    chosen = start[leaf] + rank * size[leaf] // kept[leaf]
    return chosen.astype(np.int64), (size / np.maximum(kept, 1)).astype(np.float32)


def _batches(documents: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [
        documents[begin : begin + DOCUMENTS_PER_READ]
        for begin in range(0, len(documents), DOCUMENTS_PER_READ)
    ]


def _read(texts: Texts, documents: NDArray[np.int64]) -> list[str]:
    return [text[:CHARACTERS_PER_DOCUMENT] for text in texts(documents)]
