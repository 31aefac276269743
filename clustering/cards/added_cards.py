"""Domain cards after an addition: what was counted grows, and the examples stay.

The counts per leaf are sums, so those of the new documents are added to those that are there; keywords,
sources, languages and scripts follow from them. Terms are those of the build: words that only new documents
use are not counted, and a corpus that has many of those has drifted (see add.py). The duplicate share stays
that of the build: an addition knows by its digest what is there already, and does not ask where it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.cards import (
    COUNTED,
    card_file,
    read_counts,
    shares,
    top_sources,
    write_counts,
)
from clustering.cards.describe_task import ranks
from clustering.cards.keywords import Keywords
from clustering.cards.leaf_facts import documents_per_chosen, language_documents_per_leaf
from clustering.cards.terms import Texts, count_terms, documents_per_leaf, sum_leaves
from clustering.cards.writing import SCRIPTS, count_writing
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counted:
    """Counts per leaf, CSR (num_leaves, columns), and the names of the columns."""

    counts: Any
    names: list[str]

    def plus(self, counts: Any, names: Sequence[str]) -> _Counted:
        """With those of further documents; names that are new follow those that are there."""
        union = list(dict.fromkeys([*self.names, *names]))
        place = {name: column for column, name in enumerate(union)}
        columns = np.array([place[name] for name in names], dtype=np.int64)
        shape = (self.counts.shape[0], len(union))
        own = self.counts.tocoo()
        new = counts.tocoo()
        wider = sparse.csr_matrix((own.data, (own.row, own.col)), shape=shape)
        more = sparse.csr_matrix((new.data, (new.row, columns[new.col])), shape=shape)
        return _Counted(counts=(wider + more).tocsr(), names=union)


def write_added_cards(corpus: Corpus, arrivals: Arrivals, folder: Path) -> list[str]:
    """Write what stands for the cards and counts of `corpus` from now on into `folder`.

    Returns the names of the files, relative to `folder`; none where the corpus has no cards.
    """
    found = {name: read_counts(corpus, name) for name in COUNTED}
    known = {name: _Counted(counts=one[0], names=one[1]) for name, one in found.items() if one}
    if len(known) < len(found):
        return []
    counted = _grown(known, arrivals)
    written = [
        file
        for name, one in counted.items()
        for file in write_counts(folder, name, one.counts, one.names)
    ]
    more = {
        "documents": arrivals.documents_per_leaf,
        "tokens": arrivals.tokens_per_leaf,
        "samples": arrivals.samples_per_leaf,
    }
    term, source, language, script = counted.values()
    keywords = Keywords(term.counts, term.names, language.counts)
    for level in range(len(corpus.levels)):
        name = card_file(level)
        content = corpus.extra(name)
        if content is None:
            continue
        view = corpus.domains(level=level)
        bounds = view.leaf_bounds
        grown = {key: np.add.reduceat(values, bounds[:-1]) for key, values in more.items()}
        parents = view.parents_in(corpus.domains(level=level - 1)) if level else None
        told: dict[str, list[Any]] = {
            "keywords": keywords.of(bounds, parents),
            "sources": top_sources(sum_leaves(source.counts, bounds), source.names),
            "languages": shares(sum_leaves(language.counts, bounds), language.names),
            "scripts": shares(sum_leaves(script.counts, bounds), script.names),
        }
        lines = []
        # Bytes: as text, lines would also end at U+2028, which examples may hold.
        for domain, line in enumerate(content.splitlines()):
            card: dict[str, Any] = json.loads(line)
            card |= {key: card[key] + int(values[domain]) for key, values in grown.items()}
            card["mean_tokens"] = round(card["tokens"] / max(card["documents"], 1), 1)
            card |= {key: values[domain] for key, values in told.items()}
            lines.append(json.dumps(card, sort_keys=True, ensure_ascii=False) + "\n")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(lines), encoding="utf-8")
        written.append(name)
    return written


def _grown(known: dict[str, _Counted], arrivals: Arrivals) -> dict[str, _Counted]:
    """The counts with those of the new documents, of which as many of a leaf are read as in a build."""
    num_leaves = len(arrivals.documents_per_leaf)
    rank = ranks(arrivals.leaf)

    def sample(limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        chosen = np.flatnonzero(rank < limit)
        leaf = arrivals.leaf[chosen]
        return chosen, leaf, documents_per_chosen(leaf, arrivals.documents_per_leaf)

    terms = known["term"].names
    counts = count_terms(arrivals.texts, *sample(documents_per_leaf(num_leaves)), terms)
    told = sample(language_documents_per_leaf(num_leaves))
    languages, language_names, scripts = count_writing(arrivals.texts, *told)
    ones = np.ones(len(arrivals.leaf), dtype=np.int64)
    shape = (num_leaves, len(arrivals.source_names))
    sources = sparse.csr_matrix((ones, (arrivals.leaf, arrivals.source)), shape=shape)
    return {
        "term": known["term"].plus(counts, terms),
        "source": known["source"].plus(sources, arrivals.source_names),
        "language": known["language"].plus(languages, language_names),
        "script": known["script"].plus(scripts, SCRIPTS),
    }
