"""Domain cards: what a person wants to know about a domain, written beside the shards.

    cards/level{l}.jsonl        one card per domain of level l, in domain order
    tree/NAME_counts.npz        CSR (num_leaves, columns); names of the columns in tree/NAMEs.json
        term        float32: documents with the term
        source      int64: documents from the file
        language    float32: documents in the language
        script      float32: letters of the script at the beginnings of documents

The counts are kept per leaf because every domain of every k is a range of leaves: `inspection.py`
sums them. All files are reproducible byte for byte: npz members carry no time and no compression.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from pipeline import Corpus

COUNTED = ("term", "source", "language", "script")
NUM_EXAMPLES = 3
NUM_SOURCES = 5
NUM_SHARES = 4
SMALLEST_SHARE = 0.005
SHARE_DIGITS = 4
"""Behind the point, of shares in cards."""
EXCERPT_CHARACTERS = 480


def card_file(level: int) -> str:
    """Where the cards of a level are, relative to the corpus folder."""
    return f"cards/level{level}.jsonl"


def count_files(name: str) -> tuple[str, str]:
    """Where the counts per leaf of one of `COUNTED` are, and the names of their columns."""
    return f"tree/{name}_counts.npz", f"tree/{name}s.json"


def write_counts(
    folder: Path, name: str, counts: sparse.csr_matrix, names: Sequence[str]
) -> list[str]:
    """Write counts per leaf; returns the files, relative to `folder`."""
    counts_file, names_file = count_files(name)
    (folder / counts_file).parent.mkdir(parents=True, exist_ok=True)
    sparse.save_npz(folder / counts_file, counts.tocsr(), compressed=False)
    (folder / names_file).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    return [counts_file, names_file]


def read_counts(corpus: Corpus, name: str) -> tuple[sparse.csr_matrix, list[str]] | None:
    """Counts per leaf and the names of their columns; None when the corpus has none."""
    counts, names = map(corpus.extra, count_files(name))
    if counts is None or names is None:
        return None
    return sparse.load_npz(io.BytesIO(counts)), json.loads(names)


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
                    "share": round(int(values[i]) / total, SHARE_DIGITS),
                }
                for i in best
            ]
        )
    return rows


def shares(counts: sparse.csr_matrix, names: Sequence[str]) -> list[dict[str, float]]:
    """Per row, the largest columns by name with their share, the largest first."""
    rows = []
    for row in range(counts.shape[0]):
        begin, end = counts.indptr[row], counts.indptr[row + 1]
        columns, values = counts.indices[begin:end], counts.data[begin:end]
        total = float(values.sum())
        best = np.lexsort((columns, -values))[:NUM_SHARES]
        of_row = {
            names[columns[i]]: round(float(values[i]) / total, SHARE_DIGITS)
            for i in best
            if values[i] > 0
        }
        rows.append({name: share for name, share in of_row.items() if share >= SMALLEST_SHARE})
    return rows


def excerpt(text: str) -> str:
    """The beginning of a document, cut at a word; line breaks stay, because code needs them."""
    text = text.strip()
    if len(text) <= EXCERPT_CHARACTERS:
        return text
    cut = text[:EXCERPT_CHARACTERS]
    return cut[: max(cut.rfind(" "), EXCERPT_CHARACTERS // 2)].rstrip() + " …"
