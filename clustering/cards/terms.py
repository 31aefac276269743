"""In how many documents of each leaf every term occurs.

A domain of any granularity is a range of leaves, so its counts are a sum of rows: counting once per leaf
gives keywords at every k (keywords.py). Documents are counted, not occurrences: who speaks, repeated on every
line of a dialogue, is no more telling than what is said once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

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

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[^\W\d_{_UNSPACED}]{{2,30}}")
_PAIR = re.compile(rf"(?=([{_UNSPACED}]{{2}}))")

Texts = Callable[[NDArray[np.int64]], list[str]]


def terms_of(text: str) -> list[str]:
    """Words of letters, so that identifiers fall apart; of scripts without spaces, all pairs of characters.

    Most words of Chinese have two characters, and a pair that straddles two words is rarer than either.
    """
    text = text[:CHARACTERS_PER_DOCUMENT].lower()
    words: list[str] = _WORD.findall(text)
    return words if text.isascii() else words + _PAIR.findall(text)


def is_pair(term: str) -> bool:
    """Whether a term is a pair of characters, and so perhaps a piece of a longer word."""
    return _PAIR.match(term) is not None


def documents_per_leaf(num_leaves: int) -> int:
    """How many documents of a leaf are counted."""
    return int(np.clip(MAX_DOCUMENTS // max(num_leaves, 1), 1, MAX_DOCUMENTS_PER_LEAF))


def find_terms(texts: Texts, chosen: NDArray[np.int64]) -> list[str]:
    """The terms to count: those of the most documents among evenly spaced ones of `chosen` (n,), sorted."""
    from sklearn.feature_extraction.text import CountVectorizer

    step = max(1, -(-len(chosen) // VOCABULARY_DOCUMENTS))
    vectorizer = CountVectorizer(analyzer=terms_of, max_features=MAX_TERMS, binary=True)
    try:
        vectorizer.fit(text for batch in _batches(chosen[::step]) for text in texts(batch))
    except ValueError:  # scikit-learn's answer to texts without a single word
        return []
    return [str(term) for term in vectorizer.get_feature_names_out()]


def count_terms(
    texts: Texts,
    chosen: NDArray[np.int64],
    leaf: NDArray[np.int64],
    weight: NDArray[np.float32],
    terms: list[str],
) -> sparse.csr_matrix:
    """Count the documents with each term, from documents that stand for others.

    Args:
        texts: Returns the texts of the given documents.
        chosen: int64 (n,): the documents.
        leaf: int64 (n,): the leaf of each.
        weight: float32 (num_leaves,): for how many documents one of each leaf stands.
        terms: What is counted.

    Returns:
        Estimated documents, float32 CSR of shape (num_leaves, num_terms), so that rows may be added.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    shape = (len(weight), len(terms))
    total = sparse.csr_matrix(shape, dtype=np.float32)
    if not terms or not len(chosen):
        return total
    vectorizer = CountVectorizer(analyzer=terms_of, vocabulary=terms, binary=True, dtype=np.float32)
    portions = []
    begin = 0
    for batch in _batches(chosen):
        found = vectorizer.transform(texts(batch)).tocoo()
        rows = leaf[begin + found.row]
        # Neighbors share leaves, so the sum is far smaller than what was found.
        portion = sparse.csr_matrix((weight[rows], (rows, found.col)), shape=shape)
        portions.append(portion.tocoo())
        begin += len(batch)
    rows, columns, values = (
        np.concatenate([getattr(portion, name) for portion in portions])
        for name in ("row", "col", "data")
    )
    return sparse.csr_matrix((values, (rows, columns)), shape=shape)


def sum_leaves(counts: sparse.csr_matrix, leaf_bounds: NDArray[np.int64]) -> sparse.csr_matrix:
    """Add the rows of each domain: (num_leaves, m) to (k, m), for `leaf_bounds` of shape (k+1,)."""
    num_domains = len(leaf_bounds) - 1
    domain = np.repeat(np.arange(num_domains), np.diff(leaf_bounds))
    ones = np.ones(len(domain), dtype=counts.dtype)
    indicator = sparse.csr_matrix(
        (ones, (domain, np.arange(len(domain)))), shape=(num_domains, counts.shape[0])
    )
    return (indicator @ counts).tocsr()


def _batches(documents: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for begin in range(0, len(documents), DOCUMENTS_PER_READ):
        yield documents[begin : begin + DOCUMENTS_PER_READ]
