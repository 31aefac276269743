"""Keywords of a domain: terms that it uses more than its language does anyway, and more than its siblings.

The weight of a term with the share q among the terms of a domain is q * log(q / b) * log(1 / p)**2. The
first factors are its part of the divergence of the domain from a background with the share b, the larger of

    usual    its share in the median leaf of the language that the domain is in: half of the leaves use "der"
             or "the" that much, but hardly one of the words that have a subject
    rivals   its share in a sibling that few others surpass: markup of dialogues or licenses recurs in many

The last is its inverse document frequency among the texts of that language, p of which have it; squared, as
where TF-IDF vectors are multiplied. No list of words is needed, so this holds for any language, and for code,
which counts as one (writing.py). Class-based TF-IDF (M. Grootendorst, arXiv 2203.05794) compares with all
classes alike, where words of a language, or of a format, that only some classes share count as rare.

A domain is taken to use a term less by one standard error than was counted: a single document is no evidence.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.terms import is_pair, sum_leaves

NUM_KEYWORDS = 10
SATISFYING = 3
"""So many keywords are enough; where there are fewer, what asks for less adds to them."""
RIVAL_SHARE = 0.05
"""Of the siblings: a term that so many others use at least as much tells nothing of a domain."""
MAX_RATIO = 64.0
"""A term that is used nowhere else counts as if its background were so much smaller."""
RAREST = 1e-3
"""Rarer terms of a language count as this rare."""
FEWEST = 0.02
"""Of the documents of a domain: what is in fewer is not what it is about."""


class Keywords:
    """Finds the keywords of domains that are ranges of leaves.

    Args:
        counts: float32 CSR (num_leaves, terms): documents with each term.
        terms: Names of the columns.
        languages: float32 CSR (num_leaves, languages): documents in each language.
    """

    def __init__(
        self, counts: sparse.csr_matrix, terms: list[str], languages: sparse.csr_matrix
    ) -> None:
        self._counts = counts
        self._terms = terms
        self._languages = languages

    def of(
        self, leaf_bounds: NDArray[np.int64], parents: NDArray[np.int64] | None = None
    ) -> list[list[str]]:
        """Up to `NUM_KEYWORDS` of each domain, best first.

        A domain without siblings is its parent, and is told apart as that is: among all.

        Args:
            leaf_bounds: int64 (k+1,): domain i owns the leaves bounds[i]..bounds[i+1].
            parents: int64 (k,), non-decreasing: domains with the same parent are siblings. None: all are.
        """
        k = len(leaf_bounds) - 1
        if parents is None:
            parents = np.zeros(k, dtype=np.int64)
        counts = sum_leaves(self._counts, leaf_bounds)
        languages = _shares(sum_leaves(self._languages, leaf_bounds))
        edges = np.flatnonzero(np.append([True], parents[1:] != parents[:-1])).tolist()
        of_parents = self.of(leaf_bounds[[*edges, k]]) if len(edges) > 1 else []
        found: list[list[str]] = []
        for number, (begin, end) in enumerate(zip(edges, [*edges[1:], k], strict=True)):
            if end - begin == 1 and of_parents:
                found.append(of_parents[number])
            else:
                found.extend(self._told_apart(counts[begin:end], languages[begin:end]))
        return found

    def _told_apart(
        self, counts: sparse.csr_matrix, languages: sparse.csr_matrix
    ) -> list[list[str]]:
        """Keywords of n siblings, from counts (n, terms) and shares (n, languages)."""
        surpassing = max(1, round(RIVAL_SHARE * counts.shape[0]))
        shares, totals = _shares(counts), np.asarray(counts.sum(axis=1)).ravel()
        columns = shares.tocsc()
        last, next_one = (_largest(columns, rank) for rank in (surpassing - 1, surpassing))
        found = []
        for row in range(counts.shape[0]):
            terms, share = _row(shares, row)
            count = share * totals[row]
            spoken, part = _row(languages, row)
            in_languages = np.ix_(spoken, terms)
            rivals = np.where(share >= last[terms], next_one[terms], last[terms])
            usual = part @ self._usual[in_languages]
            rarity = -np.log(np.clip(part @ self._frequency[in_languages], RAREST, 1))
            sure = share * (1 - 1 / np.sqrt(np.maximum(count, 1 + 1e-6)))
            # The commonest term is nearly everywhere.
            candidates = np.flatnonzero(count >= FEWEST * count.max(initial=0))
            names: list[str] = []
            for weight in (
                _divergence(sure, np.maximum(usual, rivals)) * rarity**2,
                _divergence(sure, usual) * rarity**2,  # siblings are all but the same
                _divergence(share, rivals),  # every document has all of it
            ):
                best = candidates[np.lexsort((terms[candidates], -weight[candidates]))]
                names += [self._terms[terms[i]] for i in best[: 2 * NUM_KEYWORDS] if weight[i] > 0]
                if len(names) >= SATISFYING:
                    break
            found.append(_distinct(names)[:NUM_KEYWORDS])
        return found

    @cached_property
    def _leaves_in(self) -> list[NDArray[np.int64]]:
        """The leaves that are mostly in each language."""
        main = np.asarray(self._languages.argmax(axis=1)).ravel()
        main[np.diff(self._languages.indptr) == 0] = -1
        return [np.flatnonzero(main == column) for column in range(self._languages.shape[1])]

    @cached_property
    def _usual(self) -> NDArray[np.float64]:
        """The share of each term in the median leaf: (languages, terms). A single leaf tells nothing."""
        shares = _shares(self._counts)
        nothing = np.zeros(len(self._terms))
        rows = [
            _largest(shares[leaves].tocsc(), len(leaves) // 2) if len(leaves) > 1 else nothing
            for leaves in self._leaves_in
        ]
        return np.array(rows)

    @cached_property
    def _frequency(self) -> NDArray[np.float64]:
        """The share of the documents with each term: (languages, terms)."""
        documents = np.asarray(self._languages.sum(axis=1)).ravel()
        rows = [
            np.asarray(self._counts[leaves].sum(axis=0)).ravel() / max(documents[leaves].sum(), 1)
            for leaves in self._leaves_in
        ]
        return np.array(rows)


def _divergence(share: NDArray[np.float64], background: NDArray[np.float64]) -> NDArray[np.float64]:
    weight: NDArray[np.float64] = share * np.log(share / np.maximum(background, share / MAX_RATIO))
    return weight


def _row(matrix: sparse.csr_matrix, row: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    here = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[here], matrix.data[here]


def _shares(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows that add up to 1, but for empty ones."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    return (sparse.diags(1 / np.maximum(totals, 1e-12)) @ counts).tocsr()


def _largest(columns: sparse.csc_matrix, rank: int) -> NDArray[np.float64]:
    """The value of each column below the `rank` largest ones; 0 where there are not so many."""
    has = np.diff(columns.indptr) > rank
    some = columns[:, has]
    column = np.repeat(np.arange(some.shape[1]), np.diff(some.indptr))
    falling = some.data[np.lexsort((-some.data, column))]
    values = np.zeros(columns.shape[1])
    values[has] = falling[some.indptr[:-1] + rank]
    return values


def _distinct(terms: list[str]) -> list[str]:
    """Without plurals of what is there already, or the other way round, and without overlapping pairs."""
    kept: list[str] = []
    for term in terms:
        if term in kept or term + "s" in kept or term.removesuffix("s") in kept:
            continue
        if any(is_pair(term) and is_pair(t) and (t[0] == term[1] or t[1] == term[0]) for t in kept):
            continue
        kept.append(term)
    return kept
