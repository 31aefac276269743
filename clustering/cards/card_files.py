"""The files of the cards (cards.py), from what is known about every leaf (leaf_facts.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards.cards import (
    NUM_EXAMPLES,
    SHARE_DIGITS,
    card_file,
    excerpt,
    shares,
    top_sources,
    write_counts,
)
from clustering.cards.centers import CenterDistances
from clustering.cards.keywords import Keywords
from clustering.cards.leaf_facts import LeafFacts, gather_facts
from clustering.cards.neighbors import nearest_domains
from clustering.cards.terms import Texts, sum_leaves
from clustering.cards.writing import SCRIPTS
from clustering.documents.document_parts import DocumentParts
from clustering.trees.tree import Tree
from clustering.work.work_store import WorkStore

NUM_NEIGHBORS = 5
DOMAINS_PER_CHUNK = 2_048
"""Domains whose excerpts are in memory at a time."""


def describe_corpus(
    out: Path,
    store: WorkStore,
    tree: Tree,
    leaf_offsets: NDArray[np.int64],
    advance: Callable[[int], None] = lambda read: None,
) -> list[str]:
    """Write the cards of every level, and the per-leaf counts behind them.

    Args:
        out: The corpus folder.
        store: The work store, with `DescribeTask` done for every part.
        tree: The tree.
        leaf_offsets: int64 (num_leaves+1,): sample positions where leaves begin.
        advance: Is told how many texts were read.

    Returns:
        The files written, relative to `out`, sorted.
    """
    documents = DocumentParts(store)
    facts = gather_facts(store, documents, tree.num_leaves, advance)
    names = documents.source_names
    written = [
        *write_counts(out, "term", facts.terms, facts.term_names),
        *write_counts(out, "source", facts.sources, names),
        *write_counts(out, "language", facts.languages, facts.language_names),
        *write_counts(out, "script", facts.scripts, SCRIPTS),
    ]
    keywords = Keywords(facts.terms, facts.term_names, facts.languages)
    distances = CenterDistances(store, documents, tree, facts)
    with documents.at_hand(facts.standing["document"]) as texts:
        for level in range(len(tree.levels)):
            bounds = tree.leaf_bounds(level)
            coarser = tree.leaf_bounds(level - 1) if level else bounds
            parents = np.searchsorted(coarser, bounds[:-1], side="right") - 1
            columns = _columns(facts, names, bounds, leaf_offsets)
            columns["leaves"] = np.stack([bounds[:-1], bounds[1:]], axis=1).tolist()
            columns["parent"] = parents.tolist() if level else [None] * len(parents)
            columns["keywords"] = keywords.of(bounds, parents if level else None)
            if level:
                columns["nearest"] = _nearest(tree.centroids[level - 1])
            examples = _Examples(facts, distances.at(level), bounds, texts, names)
            _write_cards(out / card_file(level), columns, examples)
            written.append(card_file(level))
    return sorted(written)


def _write_cards(path: Path, columns: dict[str, list[Any]], examples: _Examples) -> None:
    """Write a line for each of k domains: its values of the columns, of k values each, and its examples."""
    k = len(columns["leaves"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for begin in range(0, k, DOMAINS_PER_CHUNK):
            domains = range(begin, min(begin + DOMAINS_PER_CHUNK, k))
            for domain, shown in zip(domains, examples.of(domains), strict=True):
                values = {name: column[domain] for name, column in columns.items()}
                card = {"domain": domain, **values, **shown}
                file.write(json.dumps(card, sort_keys=True, ensure_ascii=False) + "\n")


def _columns(
    facts: LeafFacts,
    source_names: list[str],
    bounds: NDArray[np.int64],
    leaf_offsets: NDArray[np.int64],
) -> dict[str, list[Any]]:
    """What is counted of the domains of a level, one list of k values for each name."""
    documents, tokens, copies = (
        np.diff(np.append(0, np.cumsum(values))[bounds])
        for values in (facts.documents, facts.tokens, facts.copies)
    )
    return {
        "documents": documents.tolist(),
        "tokens": tokens.tolist(),
        "samples": np.diff(leaf_offsets[bounds]).tolist(),
        "mean_tokens": np.round(tokens / np.maximum(documents, 1), 1).tolist(),
        "duplicate_share": np.round(
            (copies - documents) / np.maximum(copies, 1), SHARE_DIGITS
        ).tolist(),
        "sources": top_sources(sum_leaves(facts.sources, bounds), source_names),
        "languages": shares(sum_leaves(facts.languages, bounds), facts.language_names),
        "scripts": shares(sum_leaves(facts.scripts, bounds), SCRIPTS),
    }


def _nearest(centroids: NDArray[np.float32]) -> list[list[dict[str, Any]]]:
    nearest, cosine = nearest_domains(centroids, NUM_NEIGHBORS)
    return [
        [
            {"domain": domain, "cosine": round(value, 3)}
            for domain, value in zip(domains, values, strict=True)
        ]
        for domains, values in zip(nearest.tolist(), cosine.tolist(), strict=True)
    ]


class _Examples:
    """Of the documents that stand for the leaves of a domain, the nearest to its center and the farthest.

    Args:
        facts: Has those documents.
        distances: float32 (n,): of each to the center of its domain.
        bounds: int64 (k+1,): the leaves of the domains.
        texts: Returns the texts of documents.
        source_names: Names of the input files.
    """

    def __init__(
        self,
        facts: LeafFacts,
        distances: NDArray[np.float32],
        bounds: NDArray[np.int64],
        texts: Texts,
        source_names: list[str],
    ) -> None:
        rows = facts.standing
        domain = np.searchsorted(bounds, rows["leaf"], side="right") - 1
        order = np.lexsort((rows["document"], distances, domain))
        self._rows, self._distances = rows[order], distances[order]
        self._start = np.searchsorted(domain[order], np.arange(len(bounds))).tolist()
        self._texts = texts
        self._names = source_names

    def of(self, domains: range) -> list[dict[str, Any]]:
        """`examples` and `farthest` of each domain, as excerpts."""
        spans = [(self._start[domain], self._start[domain + 1]) for domain in domains]
        near = [range(begin, min(begin + NUM_EXAMPLES, end)) for begin, end in spans]
        far = [end - 1 if end - begin > NUM_EXAMPLES else None for begin, end in spans]
        wanted = [*(row for rows in near for row in rows), *(row for row in far if row is not None)]
        texts = self._texts(self._rows["document"][np.array(wanted, dtype=np.int64)])
        shown = {row: self._example(row, text) for row, text in zip(wanted, texts, strict=True)}
        return [
            {
                "examples": [shown[row] for row in rows],
                "farthest": None if last is None else shown[last],
            }
            for rows, last in zip(near, far, strict=True)
        ]

    def _example(self, row: int, text: str) -> dict[str, Any]:
        found = self._rows[row]
        return {
            "document": int(found["document"]),
            "source": self._names[found["source"]],
            "distance": round(float(self._distances[row]), 4),
            "text": excerpt(text),
        }
