"""Domain cards: what a person wants to know about a domain, written beside the shards.

    cards/level{l}.jsonl        one card per domain of level l, in domain order
    tree/term_counts.npz        float32 CSR (num_leaves, terms); column names in tree/terms.json
    tree/source_counts.npz      int64 CSR (num_leaves, sources) of documents; tree/sources.json

The counts are kept per leaf because every domain of every k is a range of leaves: `inspection.py`
sums them. All files are reproducible byte for byte: npz members carry no time and no compression.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.keywords import Texts, class_keywords, count_terms, sum_leaves

TERM_COUNTS_FILE = "tree/term_counts.npz"
TERMS_FILE = "tree/terms.json"
SOURCE_COUNTS_FILE = "tree/source_counts.npz"
SOURCES_FILE = "tree/sources.json"

NUM_EXAMPLES = 3
NUM_KEYWORDS = 10
NUM_SOURCES = 5
EXCERPT_CHARACTERS = 480
DOMAINS_PER_CHUNK = 2_048
"""Domains whose excerpts are in memory at a time."""


def write_cards(
    out: Path,
    *,
    levels: Sequence[int],
    leaf_bounds_per_level: Sequence[NDArray[np.int64]],
    document_leaf: NDArray[np.int64],
    document_tokens: NDArray[np.int64],
    document_distance: NDArray[np.float32],
    texts: Texts,
    document_source: NDArray[np.int32],
    source_names: Sequence[str],
    leaf_offsets: NDArray[np.int64],
) -> list[str]:
    """Write the cards of every level, and the per-leaf counts behind them.

    Args:
        out: The corpus folder; `cards/` and `tree/` are made when missing.
        levels: Domains per level, from the root (1) to the leaves.
        leaf_bounds_per_level: Per level, int64 (k+1,): domain i owns leaves bounds[i]..bounds[i+1].
        document_leaf: int64 (n,), ascending: documents are given in leaf order.
        document_tokens: int64 (n,): tokens of each document.
        document_distance: float32 (n,): cosine distance of each document to its leaf's centroid.
        texts: Returns the texts of the documents with the given (ascending) indices.
        document_source: int32 (n,): index of each document's file in `source_names`.
        source_names: File names.
        leaf_offsets: int64 (num_leaves+1,): sample positions where leaves begin.

    Returns:
        The files written, relative to `out`, sorted.
    """
    num_leaves = len(leaf_offsets) - 1
    if list(levels) != [len(bounds) - 1 for bounds in leaf_bounds_per_level]:
        raise ValueError(
            f"levels are {tuple(levels)}, but the leaf bounds have the lengths "
            f"{[len(bounds) for bounds in leaf_bounds_per_level]}; a level of k domains has k + 1."
        )
    (out / "cards").mkdir(parents=True, exist_ok=True)
    (out / "tree").mkdir(parents=True, exist_ok=True)
    documents = _Documents(
        document_leaf,
        document_tokens,
        document_distance,
        document_source,
        list(source_names),
        num_leaves,
    )
    term_counts, terms = count_terms(texts, document_leaf, num_leaves)
    source_counts = sparse.csr_matrix(
        (np.ones(len(document_leaf), dtype=np.int64), (document_leaf, document_source)),
        shape=(num_leaves, len(source_names)),
    )
    source_counts.sum_duplicates()
    sparse.save_npz(out / TERM_COUNTS_FILE, term_counts, compressed=False)
    _write_json(out / TERMS_FILE, terms)
    sparse.save_npz(out / SOURCE_COUNTS_FILE, source_counts, compressed=False)
    _write_json(out / SOURCES_FILE, list(source_names))
    written = [TERM_COUNTS_FILE, TERMS_FILE, SOURCE_COUNTS_FILE, SOURCES_FILE]
    for level, bounds in enumerate(leaf_bounds_per_level):
        facts = documents.facts(bounds, leaf_offsets)
        keywords = class_keywords(sum_leaves(term_counts, bounds), terms, top=NUM_KEYWORDS)
        sources = top_sources(sum_leaves(source_counts, bounds), documents.source_names)
        coarser = leaf_bounds_per_level[level - 1] if level else None
        name = card_file(level)
        with (out / name).open("w", encoding="utf-8") as file:
            for begin in range(0, len(bounds) - 1, DOMAINS_PER_CHUNK):
                chunk = range(begin, min(begin + DOMAINS_PER_CHUNK, len(bounds) - 1))
                for domain, examples in zip(
                    chunk, documents.examples(bounds, chunk, texts), strict=True
                ):
                    card = {
                        "domain": domain,
                        "leaves": [int(bounds[domain]), int(bounds[domain + 1])],
                        "parent": None
                        if coarser is None
                        else _domain_of(coarser, int(bounds[domain])),
                        "keywords": keywords[domain],
                        "sources": sources[domain],
                        **{key: int(values[domain]) for key, values in facts.items()},
                        **examples,
                    }
                    file.write(json.dumps(card, sort_keys=True, ensure_ascii=False) + "\n")
        written.append(name)
    return sorted(written)


def card_file(level: int) -> str:
    """Where the cards of a level are, relative to the corpus folder."""
    return f"cards/level{level}.jsonl"


def top_sources(counts: sparse.csr_matrix, names: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Per domain, the files most of its documents come from: name, documents, share."""
    rows = []
    for row in range(counts.shape[0]):
        begin, end = counts.indptr[row], counts.indptr[row + 1]
        columns, values = counts.indices[begin:end], counts.data[begin:end]
        total = int(values.sum())
        best = np.lexsort((columns, -values))[:NUM_SOURCES]
        rows.append(
            [
                {
                    "source": names[columns[i]],
                    "documents": int(values[i]),
                    "share": round(int(values[i]) / total, 4),
                }
                for i in best
            ]
        )
    return rows


class _Documents:
    """The documents in leaf order, with what the cards ask about them."""

    def __init__(
        self,
        leaf: NDArray[np.int64],
        tokens: NDArray[np.int64],
        distance: NDArray[np.float32],
        source: NDArray[np.int32],
        source_names: list[str],
        num_leaves: int,
    ) -> None:
        if len(leaf) and (np.any(np.diff(leaf) < 0) or leaf[0] < 0 or leaf[-1] >= num_leaves):
            raise ValueError(
                f"document_leaf must ascend within 0..{num_leaves - 1}: "
                "sort the documents by leaf first."
            )
        self.distance = distance
        self.source = source
        self.source_names = source_names
        self.start = np.searchsorted(leaf, np.arange(num_leaves + 1))
        """Where each leaf's documents begin."""
        self.tokens_before = np.concatenate(([0], np.cumsum(tokens, dtype=np.int64)))
        self.by_distance = np.lexsort((np.arange(len(leaf)), distance, leaf))
        """Document indices, leaf after leaf, the nearest to the leaf's centroid first."""

    def facts(
        self, bounds: NDArray[np.int64], leaf_offsets: NDArray[np.int64]
    ) -> dict[str, NDArray[np.int64]]:
        """Documents, tokens and samples of each domain, each int64 (k,)."""
        edges = self.start[bounds]
        return {
            "documents": np.diff(edges),
            "tokens": np.diff(self.tokens_before[edges]),
            "samples": np.diff(leaf_offsets[bounds]),
        }

    def examples(
        self, bounds: NDArray[np.int64], domains: range, texts: Texts
    ) -> list[dict[str, Any]]:
        """Per domain: `examples` near the centre and the `farthest` document, as excerpts."""
        near = [self._central(int(bounds[d]), int(bounds[d + 1])) for d in domains]
        far = [self._farthest(int(bounds[d]), int(bounds[d + 1])) for d in domains]
        wanted = np.unique(
            np.array([i for row in near for i in row] + [i for i in far if i >= 0], dtype=np.int64)
        )
        text_of = (
            dict(zip(wanted.tolist(), map(excerpt, texts(wanted)), strict=True))
            if len(wanted)
            else {}
        )
        return [
            {
                "examples": [self._example(i, text_of[i]) for i in central],
                "farthest": None
                if last < 0 or last in central
                else self._example(last, text_of[last]),
            }
            for central, last in zip(near, far, strict=True)
        ]

    def _central(self, first: int, last: int) -> list[int]:
        """Documents nearest to a centroid, from the domain's largest leaves in turn."""
        size = np.diff(self.tokens_before[self.start[first : last + 1]])
        largest = first + np.argsort(-size, kind="stable")[:NUM_EXAMPLES]
        found: list[int] = []
        for rank in range(NUM_EXAMPLES):
            for leaf in largest:
                place = self.start[leaf] + rank
                if place < self.start[leaf + 1] and len(found) < NUM_EXAMPLES:
                    found.append(int(self.by_distance[place]))
        return found

    def _farthest(self, first: int, last: int) -> int:
        begin, end = int(self.start[first]), int(self.start[last])
        return begin + int(np.argmax(self.distance[begin:end])) if end > begin else -1

    def _example(self, document: int, text: str) -> dict[str, Any]:
        return {
            "document": document,
            "source": self.source_names[self.source[document]],
            "distance": round(float(self.distance[document]), 4),
            "text": text,
        }


def excerpt(text: str) -> str:
    """The beginning of a document, cut at a word; line breaks stay, because code needs them."""
    text = text.strip()
    if len(text) <= EXCERPT_CHARACTERS:
        return text
    cut = text[:EXCERPT_CHARACTERS]
    return cut[: max(cut.rfind(" "), EXCERPT_CHARACTERS // 2)].rstrip() + " …"


def _domain_of(bounds: NDArray[np.int64], leaf: int) -> int:
    return int(np.searchsorted(bounds, leaf, side="right")) - 1


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, sort_keys=True, ensure_ascii=False), encoding="utf-8")
