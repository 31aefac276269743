"""Domain cards after an addition: what was counted grows, and the examples stay.

The term and source counts per leaf are sums, so those of the new documents are added to those that are there;
keywords follow from them. Terms are those of the build: words that only new documents use are not counted,
and a corpus that has many of those has drifted (see add.py).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards import (
    NUM_KEYWORDS,
    SOURCE_COUNTS_FILE,
    SOURCES_FILE,
    TERM_COUNTS_FILE,
    TERMS_FILE,
    card_file,
    top_sources,
)
from clustering.keywords import (
    CHARACTERS_PER_DOCUMENT,
    TERM_PATTERN,
    class_keywords,
    sum_leaves,
)
from pipeline import Corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """What the cards ask about the documents of an addition; arrays are of shape (n,) or (num_leaves,)."""

    leaf: NDArray[np.int64]
    source: NDArray[np.int32]
    """Index of each document's file in `source_names`."""
    source_names: Sequence[str]
    texts: Iterator[list[str]]
    """All texts in the order of `leaf`, some at a time."""
    documents_per_leaf: NDArray[np.int64]
    tokens_per_leaf: NDArray[np.int64]
    samples_per_leaf: NDArray[np.int64]


def write_added_cards(corpus: Corpus, arrivals: Arrivals, folder: Path) -> list[str]:
    """Write what stands for the cards and counts of `corpus` from now on into `folder`.

    Returns the names of the files, relative to `folder`; none where the corpus has no cards.
    """
    known = {name: corpus.extra(name) for name in (TERMS_FILE, SOURCES_FILE)}
    if None in known.values():
        return []
    terms, sources = (json.loads(content or b"") for content in known.values())
    term_counts = _matrix(corpus, TERM_COUNTS_FILE) + _term_counts(
        arrivals, terms, corpus.num_leaves
    )
    names, source_counts = _source_counts(arrivals, sources, _matrix(corpus, SOURCE_COUNTS_FILE))
    written = [TERM_COUNTS_FILE, SOURCE_COUNTS_FILE, SOURCES_FILE]
    for name in written:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    sparse.save_npz(folder / TERM_COUNTS_FILE, term_counts.tocsr(), compressed=False)
    sparse.save_npz(folder / SOURCE_COUNTS_FILE, source_counts, compressed=False)
    (folder / SOURCES_FILE).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    more = {
        "documents": arrivals.documents_per_leaf,
        "tokens": arrivals.tokens_per_leaf,
        "samples": arrivals.samples_per_leaf,
    }
    for level in range(len(corpus.levels)):
        name = card_file(level)
        content = corpus.extra(name)
        if content is None:
            continue
        bounds = corpus.domains(level=level).leaf_bounds
        grown = {key: np.add.reduceat(values, bounds[:-1]) for key, values in more.items()}
        keywords = class_keywords(sum_leaves(term_counts, bounds), terms, top=NUM_KEYWORDS)
        top = top_sources(sum_leaves(source_counts, bounds), names)
        lines = []
        for domain, line in enumerate(content.decode().splitlines()):
            card: dict[str, Any] = json.loads(line)
            card |= {key: card[key] + int(values[domain]) for key, values in grown.items()}
            card |= {"keywords": keywords[domain], "sources": top[domain]}
            lines.append(json.dumps(card, sort_keys=True, ensure_ascii=False) + "\n")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(lines), encoding="utf-8")
        written.append(name)
    return written


def _matrix(corpus: Corpus, name: str) -> Any:
    """A matrix of counts per leaf, as the cards have it."""
    return sparse.load_npz(io.BytesIO(corpus.extra(name) or b""))


def _term_counts(arrivals: Arrivals, terms: Sequence[str], num_leaves: int) -> Any:
    """float32 CSR (num_leaves, terms) of the new documents."""
    from sklearn.feature_extraction.text import CountVectorizer

    total = sparse.csr_matrix((num_leaves, len(terms)), dtype=np.float32)
    if not terms:
        return total
    vectorizer = CountVectorizer(
        token_pattern=TERM_PATTERN, vocabulary=list(terms), dtype=np.float32
    )
    begin = 0
    for texts in arrivals.texts:
        counts = vectorizer.transform([text[:CHARACTERS_PER_DOCUMENT] for text in texts]).tocoo()
        leaf = arrivals.leaf[begin : begin + len(texts)][counts.row]
        total += sparse.csr_matrix((counts.data, (leaf, counts.col)), shape=total.shape)
        begin += len(texts)
    return total


def _source_counts(arrivals: Arrivals, names: Sequence[str], counts: Any) -> tuple[list[str], Any]:
    """All source names, and int64 CSR (num_leaves, sources) of all documents."""
    all_names = list(dict.fromkeys([*names, *arrivals.source_names]))
    column_of = {name: column for column, name in enumerate(all_names)}
    columns = np.array([column_of[name] for name in arrivals.source_names])[arrivals.source]
    shape = (counts.shape[0], len(all_names))
    ones = np.ones(len(columns), dtype=np.int64)
    new = sparse.csr_matrix((ones, (arrivals.leaf, columns)), shape=shape)
    wider = sparse.csr_matrix((counts.data, counts.indices, counts.indptr), shape=shape)
    return all_names, (wider + new).tocsr()
