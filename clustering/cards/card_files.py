"""The files of the cards, from what is known about every leaf (leaf_facts.py).

Beside the files that cards.py names:

    tree/language_counts.npz    float32 CSR (num_leaves, languages); names in tree/languages.json
    tree/script_counts.npz      float32 CSR (num_leaves, scripts); names in tree/scripts.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.cards import (
    DOMAINS_PER_CHUNK,
    NUM_EXAMPLES,
    NUM_KEYWORDS,
    SOURCE_COUNTS_FILE,
    SOURCES_FILE,
    TERM_COUNTS_FILE,
    TERMS_FILE,
    card_file,
    excerpt,
    top_sources,
)
from clustering.cards.keywords import sibling_keywords, sum_leaves
from clustering.cards.leaf_facts import LeafFacts, gather_facts
from clustering.cards.neighbors import nearest_domains
from clustering.cards.writing import SCRIPTS
from clustering.documents.document_parts import DocumentParts
from clustering.trees.tree import Tree
from clustering.work.work_store import WorkStore

LANGUAGE_COUNTS_FILE = "tree/language_counts.npz"
LANGUAGES_FILE = "tree/languages.json"
SCRIPT_COUNTS_FILE = "tree/script_counts.npz"
SCRIPTS_FILE = "tree/scripts.json"
NUM_NEIGHBORS = 5
NUM_SHARES = 4
SMALLEST_SHARE = 0.005


def describe_corpus(
    out: Path, store: WorkStore, tree: Tree, leaf_offsets: NDArray[np.int64]
) -> list[str]:
    """Write the cards of every level, and the per-leaf counts behind them.

    Args:
        out: The corpus folder.
        store: The work store, with `DescribeTask` done for every part.
        tree: The tree.
        leaf_offsets: int64 (num_leaves+1,): sample positions where leaves begin.

    Returns:
        The files written, relative to `out`, sorted.
    """
    documents = DocumentParts(store)
    facts = gather_facts(store, documents, tree.num_leaves)
    names = documents.source_names
    written = _write_counts(out, facts, names)
    examples = _Examples(facts, documents, names)
    for level in range(len(tree.levels)):
        bounds = tree.leaf_bounds(level)
        coarser = tree.leaf_bounds(level - 1) if level else bounds
        parents = np.searchsorted(coarser, bounds[:-1], side="right") - 1
        columns = _columns(facts, names, bounds, parents, leaf_offsets)
        if level:
            columns["nearest"] = _nearest(tree.centroids[level - 1])
        (out / card_file(level)).parent.mkdir(parents=True, exist_ok=True)
        with (out / card_file(level)).open("w", encoding="utf-8") as file:
            for begin in range(0, len(bounds) - 1, DOMAINS_PER_CHUNK):
                domains = range(begin, min(begin + DOMAINS_PER_CHUNK, len(bounds) - 1))
                for domain, shown in zip(domains, examples.of(bounds, domains), strict=True):
                    card = {
                        "domain": domain,
                        "leaves": bounds[domain : domain + 2].tolist(),
                        "parent": int(parents[domain]) if level else None,
                        **{name: values[domain] for name, values in columns.items()},
                        **shown,
                    }
                    file.write(json.dumps(card, sort_keys=True, ensure_ascii=False) + "\n")
        written.append(card_file(level))
    return sorted(written)


def shares(counts: sparse.csr_matrix, names: list[str]) -> list[dict[str, float]]:
    """Per row, the largest columns by name with their share, the largest first."""
    rows = []
    for row in range(counts.shape[0]):
        begin, end = counts.indptr[row], counts.indptr[row + 1]
        columns, values = counts.indices[begin:end], counts.data[begin:end]
        total = float(values.sum())
        best = np.lexsort((columns, -values))[:NUM_SHARES]
        of_row = {
            names[columns[i]]: round(float(values[i]) / total, 4) for i in best if values[i] > 0
        }
        rows.append({name: share for name, share in of_row.items() if share >= SMALLEST_SHARE})
    return rows


def _columns(
    facts: LeafFacts,
    source_names: list[str],
    bounds: NDArray[np.int64],
    parents: NDArray[np.int64],
    leaf_offsets: NDArray[np.int64],
) -> dict[str, list[Any]]:
    """What the cards of a level say beside examples, one list of k values for each name."""
    documents, tokens, copies = (
        np.diff(np.append(0, np.cumsum(values))[bounds])
        for values in (facts.documents, facts.tokens, facts.copies)
    )
    return {
        "documents": documents.tolist(),
        "tokens": tokens.tolist(),
        "samples": np.diff(leaf_offsets[bounds]).tolist(),
        "mean_tokens": np.round(tokens / np.maximum(documents, 1), 1).tolist(),
        "duplicate_share": np.round((copies - documents) / np.maximum(copies, 1), 4).tolist(),
        "keywords": sibling_keywords(
            sum_leaves(facts.terms, bounds), facts.term_names, parents, top=NUM_KEYWORDS
        ),
        "sources": top_sources(sum_leaves(facts.sources, bounds), source_names),
        "languages": shares(sum_leaves(facts.languages, bounds), facts.language_names),
        "scripts": shares(sum_leaves(facts.scripts, bounds), list(SCRIPTS)),
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
    """The documents nearest to the centroids of a domain's largest leaves, and the farthest from its own."""

    def __init__(self, facts: LeafFacts, documents: DocumentParts, names: list[str]) -> None:
        rows = facts.standing
        self._rows = rows[np.lexsort((rows["document"], rows["distance"], rows["leaf"]))]
        self._start = np.searchsorted(self._rows["leaf"], np.arange(len(facts.documents) + 1))
        self._tokens = facts.tokens
        self._documents = documents
        self._names = names

    def of(self, bounds: NDArray[np.int64], domains: range) -> list[dict[str, Any]]:
        """`examples` and `farthest` of each domain, as excerpts."""
        near = [self._central(int(bounds[d]), int(bounds[d + 1])) for d in domains]
        far = [self._farthest(int(bounds[d]), int(bounds[d + 1])) for d in domains]
        wanted = np.unique([*(i for row in near for i in row), *(i for i in far if i >= 0)])
        wanted = wanted.astype(np.int64)
        texts = self._documents.texts(self._rows["document"][wanted])
        shown = {i: self._example(i, text) for i, text in zip(wanted.tolist(), texts, strict=True)}
        return [
            {
                "examples": [shown[i] for i in central],
                "farthest": None if last < 0 or last in central else shown[last],
            }
            for central, last in zip(near, far, strict=True)
        ]

    def _central(self, first: int, last: int) -> list[int]:
        largest = first + np.argsort(-self._tokens[first:last], kind="stable")[:NUM_EXAMPLES]
        places = [
            int(self._start[leaf]) + rank
            for rank in range(NUM_EXAMPLES)
            for leaf in largest
            if self._start[leaf] + rank < self._start[leaf + 1]
        ]
        return places[:NUM_EXAMPLES]

    def _farthest(self, first: int, last: int) -> int:
        begin, end = int(self._start[first]), int(self._start[last])
        return begin + int(np.argmax(self._rows["distance"][begin:end])) if end > begin else -1

    def _example(self, row: int, text: str) -> dict[str, Any]:
        found = self._rows[row]
        return {
            "document": int(found["document"]),
            "source": self._names[found["source"]],
            "distance": round(float(found["distance"]), 4),
            "text": excerpt(text),
        }


def _write_counts(out: Path, facts: LeafFacts, source_names: list[str]) -> list[str]:
    (out / "tree").mkdir(parents=True, exist_ok=True)
    pairs = [
        (TERM_COUNTS_FILE, facts.terms, TERMS_FILE, facts.term_names),
        (SOURCE_COUNTS_FILE, facts.sources, SOURCES_FILE, source_names),
        (LANGUAGE_COUNTS_FILE, facts.languages, LANGUAGES_FILE, facts.language_names),
        (SCRIPT_COUNTS_FILE, facts.scripts, SCRIPTS_FILE, list(SCRIPTS)),
    ]
    for counts_file, counts, names_file, names in pairs:
        sparse.save_npz(out / counts_file, counts, compressed=False)
        (out / names_file).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    return [name for pair in pairs for name in (pair[0], pair[2])]
