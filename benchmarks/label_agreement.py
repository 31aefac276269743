"""How well the domains of a corpus match known labels: NMI and purity at any k, as one table.

    python benchmarks/label_agreement.py CORPUS --k 16,64

The label of a document is the file it came from (`source` in tree/documents.parquet), which fits input that
has one file per kind of text. Purity is the share of documents whose label is the commonest of their
domain; NMI is normalised by the arithmetic mean of the entropies, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to measure."""

    corpus: tyro.conf.Positional[Path]
    """The corpus folder."""
    k: str = "16,64"
    """Numbers of domains, with commas."""


def purity(labels: NDArray[np.int64], domains: NDArray[np.int64]) -> float:
    """Share of documents with the commonest label of their domain; both arrays of shape (n,)."""
    counts = np.zeros((domains.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(counts, (domains, labels), 1)
    return float(counts.max(axis=1).sum() / len(labels))


def domains_at(
    leaf: NDArray[np.int64], split_order: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """Domain of each document in the view of k domains, from its leaf (n,)."""
    return np.searchsorted(np.sort(split_order[: k - 1]), leaf, side="right")


def main(options: Options) -> None:
    import pyarrow.parquet as pq
    from rich.console import Console
    from rich.table import Table
    from sklearn.metrics import normalized_mutual_info_score

    from pipeline import open_corpus

    corpus = open_corpus(options.corpus)
    documents = pq.read_table(options.corpus / "tree" / "documents.parquet")
    source = documents["source"].combine_chunks()
    labels = source.indices.to_numpy().astype(np.int64)
    leaf = documents["leaf"].to_numpy().astype(np.int64)
    split_order = np.load(options.corpus / "tree" / "split_order.npy")
    table = Table(
        title=f"{len(labels):,} documents, {len(np.unique(labels))} labels, {corpus.manifest.embedder}"
    )
    for column in ("k", "NMI", "purity", "largest domain", "smallest"):
        table.add_column(column, justify="right")
    for k in map(int, options.k.split(",")):
        corpus.domains(k=k)  # says what is wrong with a k that the corpus does not have
        domains = domains_at(leaf, split_order, k)
        sizes = np.bincount(domains, minlength=k) / len(domains)
        table.add_row(
            f"{k:,}",
            f"{normalized_mutual_info_score(labels, domains):.3f}",
            f"{purity(labels, domains):.3f}",
            f"{sizes.max():.1%}",
            f"{sizes.min():.2%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
