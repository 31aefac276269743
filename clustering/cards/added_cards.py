"""Domain cards after an addition: what was counted grows, and the examples stay.

The term and source counts per leaf are sums, so those of the new documents are added to those that are there;
keywords follow from them. Terms are those of the build: words that only new documents use are not counted,
and a corpus that has many of those has drifted (see add.py).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.cards import (
    NUM_KEYWORDS,
    SOURCE_COUNTS_FILE,
    SOURCES_FILE,
    TERM_COUNTS_FILE,
    TERMS_FILE,
    card_file,
    top_sources,
)
from clustering.cards.keywords import (
    CHARACTERS_PER_DOCUMENT,
    DOCUMENTS_PER_READ,
    MAX_DOCUMENTS,
    MAX_DOCUMENTS_PER_LEAF,
    TERM_PATTERN,
    Texts,
    sibling_keywords,
    sum_leaves,
)
from pipeline import Corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """What the cards ask about the documents of an addition; arrays are of shape (n,) or (num_leaves,)."""

    leaf: NDArray[np.int64]
    """Ascending; in a leaf, documents are in random order."""
    source: NDArray[np.int32]
    """Index of each document's file in `source_names`."""
    source_names: Sequence[str]
    texts: Texts
    """Returns the texts of the documents with the given indices."""
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
        parents = corpus.domains(level=level).parents_in(corpus.domains(level=max(0, level - 1)))
        keywords = sibling_keywords(
            sum_leaves(term_counts, bounds), terms, parents, top=NUM_KEYWORDS
        )
        top = top_sources(sum_leaves(source_counts, bounds), names)
        lines = []
        for domain, line in enumerate(content.decode().splitlines()):
            card: dict[str, Any] = json.loads(line)
            card |= {key: card[key] + int(values[domain]) for key, values in grown.items()}
            card["mean_tokens"] = round(card["tokens"] / max(card["documents"], 1), 1)
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
    """float32 CSR (num_leaves, terms) of the new documents, from as many of a leaf as the build takes."""
    from sklearn.feature_extraction.text import CountVectorizer

    shape = (num_leaves, len(terms))
    if not terms:
        return sparse.csr_matrix(shape, dtype=np.float32)
    vectorizer = CountVectorizer(
        token_pattern=TERM_PATTERN, vocabulary=list(terms), dtype=np.float32
    )
    chosen, weight = _counted(arrivals.leaf, num_leaves)
    portions = []
    for begin in range(0, len(chosen), DOCUMENTS_PER_READ):
        documents = chosen[begin : begin + DOCUMENTS_PER_READ]
        texts = [text[:CHARACTERS_PER_DOCUMENT] for text in arrivals.texts(documents)]
        counts = vectorizer.transform(texts).tocoo()
        leaf = arrivals.leaf[documents][counts.row]
        portion = sparse.csr_matrix((counts.data * weight[leaf], (leaf, counts.col)), shape=shape)
        portions.append(
            portion.tocoo()
        )  # neighbors share leaves, so it is far smaller than the counts
    rows, columns, values = (
        np.concatenate([getattr(portion, name) for portion in portions])
        for name in ("row", "col", "data")
    )
    return sparse.csr_matrix((values, (rows, columns)), shape=shape)


def _counted(
    leaf: NDArray[np.int64], num_leaves: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Documents whose terms are counted, ascending, and per leaf for how many each of them stands."""
    sizes = np.bincount(leaf, minlength=num_leaves)
    most = MAX_DOCUMENTS // max(1, np.count_nonzero(sizes))
    most = max(1, min(MAX_DOCUMENTS_PER_LEAF, most))
    rank = np.arange(len(leaf)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    weight = sizes / np.maximum(1, np.minimum(sizes, most))
    return np.flatnonzero(rank < most), weight.astype(np.float32)


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
