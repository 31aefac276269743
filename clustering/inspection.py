"""What `braidstream inspect` shows, gathered once for the table and for the page.

A view of k domains is a merge of the next finer level of the tree, so any k is described by that
level's cards (sizes, examples) and by sums of the per-leaf counts (keywords, sources).
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards import (
    NUM_EXAMPLES,
    NUM_KEYWORDS,
    SOURCE_COUNTS_FILE,
    SOURCES_FILE,
    TERM_COUNTS_FILE,
    TERMS_FILE,
    card_file,
    top_sources,
)
from clustering.domain_facts import (
    Balance,
    Domain,
    Example,
    Inspection,
    Layer,
    Neighbor,
    Share,
    Source,
    Target,
    TargetDomain,
)
from clustering.keywords import sibling_keywords, sum_leaves
from pipeline import Corpus, CorpusError, View
from pipeline.segments import current_name

MAX_DESCRIBED = 4_096
"""Layers with more domains than this are summarised only: nobody reads that many cards."""
TARGET_DOMAINS = 8
SMALLEST_TARGET_SHARE = 0.005
"""A domain with less of a target than this is not worth a line."""


def inspect_corpus(corpus: Corpus, *, k: int | None = None) -> Inspection:
    """Describe every level of `corpus` below the root; with `k`, the coarser levels and then k domains.

    Raises `CorpusError` when the corpus has no such k, or carries no cards.
    """
    if corpus.manifest.build.get("imported") is True:
        raise CorpusError(
            f"{str(corpus.path)!r} was imported: its {corpus.num_leaves:,} domains with "
            f"{corpus.num_samples:,} samples come from elsewhere, without texts to describe them by. Domain "
            "cards need the texts: `braidstream build` makes a corpus of them."
        )
    counts = _Counts(corpus)
    shown = _granularities(corpus.levels, k)
    views = [corpus.domains(k=count) for _, count in shown]
    layers = tuple(
        _layer(corpus, counts, views[: i + 1], name=name) for i, (name, _) in enumerate(shown)
    )
    finest = max((i for i, layer in enumerate(layers) if layer.domains), default=None)
    targets = () if finest is None else _targets(corpus, views[finest], layers[finest])
    return Inspection(corpus=corpus, layers=layers, targets=targets)


def _granularities(levels: tuple[int, ...], k: int | None) -> list[tuple[str, int]]:
    """Name and number of domains of each layer; the root is shown only when there is nothing else."""
    named = [(f"level {level}", count) for level, count in enumerate(levels)][len(levels) > 1 :]
    if k is None:
        return named
    coarser = [(name, count) for name, count in named if count < k]
    return [*coarser, next((pair for pair in named if pair[1] == k), (f"k = {k}", k))]


class _Counts:
    """The per-leaf counts that the build wrote, read when they are first needed."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    @cached_property
    def terms(self) -> tuple[Any, list[str]]:
        return self._read(TERM_COUNTS_FILE, TERMS_FILE)

    @cached_property
    def sources(self) -> tuple[Any, list[str]]:
        return self._read(SOURCE_COUNTS_FILE, SOURCES_FILE)

    def _read(self, counts_file: str, names_file: str) -> tuple[Any, list[str]]:
        from scipy import sparse

        try:
            counts = sparse.load_npz(_current(self.corpus, counts_file))
            names = json.loads(_current(self.corpus, names_file).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise _no_cards(self.corpus.path, error) from error
        return counts, names


def _layer(corpus: Corpus, counts: _Counts, views: list[View], *, name: str) -> Layer:
    """Describe the last of `views`, which lead to it from coarse to fine."""
    view = views[-1]
    source_counts, source_names = counts.sources
    per_source = sum_leaves(source_counts, view.leaf_bounds)
    balance = _balance(view, per_source, name)
    if view.k > MAX_DESCRIBED:
        return Layer(balance=balance, domains=())
    term_counts, terms = counts.terms
    siblings = view.parents_in(views[-2]) if len(views) > 1 else np.zeros(view.k, dtype=np.int64)
    keywords = sibling_keywords(
        sum_leaves(term_counts, view.leaf_bounds), terms, siblings, top=NUM_KEYWORDS
    )
    sources = top_sources(per_source, source_names)
    parents = siblings.tolist() if len(views) > 1 else [None] * view.k
    tops = view.parents_in(views[0]).tolist()
    cards = _cards_per_domain(corpus, view)
    sizes = view.sizes
    domains = tuple(
        Domain(
            index=i,
            parent=parents[i],
            top=tops[i],
            leaves=int(view.leaf_bounds[i + 1] - view.leaf_bounds[i]),
            documents=sum(card["documents"] for card in cards[i]),
            tokens=sum(card["tokens"] for card in cards[i]),
            samples=int(sizes[i]),
            share=float(sizes[i] / max(view.num_samples, 1)),
            keywords=tuple(keywords[i]),
            sources=tuple(
                Source(name=row["source"], documents=row["documents"], share=row["share"])
                for row in sources[i]
            ),
            examples=_merge_examples(cards[i]),
            farthest=_merge_farthest(cards[i]),
            languages=_merge_shares(cards[i], "languages", "documents"),
            scripts=_merge_shares(cards[i], "scripts", "tokens"),
            duplicate_share=_merge_duplicates(cards[i]),
            neighbors=_neighbors(cards[i]) if view.k in corpus.levels else (),
        )
        for i in range(view.k)
    )
    return Layer(balance=balance, domains=domains)


def _balance(view: View, per_source: Any, name: str) -> Balance:
    shares = view.sizes / max(view.num_samples, 1)
    documents = per_source.sum()
    largest = per_source.max(axis=1).sum() if per_source.shape[1] else 0
    return Balance(
        name=name,
        k=view.k,
        largest_share=float(shares.max()),
        effective=_effective(shares),
        empty=int((view.sizes == 0).sum()),
        source_purity=float(largest / documents) if documents else 0.0,
    )


def _effective(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _cards_per_domain(corpus: Corpus, view: View) -> list[list[dict[str, Any]]]:
    """The cards of the coarsest level that is at least as fine as `view`, grouped by its domains."""
    level = next(i for i, k in enumerate(corpus.levels) if k >= view.k)
    path = _current(corpus, card_file(level))
    grouped: list[list[dict[str, Any]]] = [[] for _ in range(view.k)]
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                card = json.loads(line)
                first_leaf = card["leaves"][0]
                domain = int(np.searchsorted(view.leaf_bounds, first_leaf, side="right")) - 1
                grouped[domain].append(card)
    except FileNotFoundError as error:
        raise _no_cards(corpus.path, error) from error
    return grouped


def _merge_examples(cards: list[dict[str, Any]]) -> tuple[Example, ...]:
    """Central documents of the largest parts in turn, as in `cards.py`."""
    largest = sorted(cards, key=lambda card: -card["tokens"])[:NUM_EXAMPLES]
    ranked = [
        card["examples"][rank]
        for rank in range(NUM_EXAMPLES)
        for card in largest
        if rank < len(card["examples"])
    ]
    return tuple(_example(row) for row in ranked[:NUM_EXAMPLES])


def _merge_farthest(cards: list[dict[str, Any]]) -> Example | None:
    rows = [card["farthest"] for card in cards if card["farthest"]]
    return _example(max(rows, key=lambda row: float(row["distance"]))) if rows else None


def _merge_shares(cards: list[dict[str, Any]], name: str, weight: str) -> tuple[Share, ...]:
    """Mean of the shares in the cards, each weighing as much as its documents or tokens."""
    total = sum(card[weight] for card in cards if card.get(name))
    shares: dict[str, float] = {}
    for card in cards:
        for key, share in card.get(name, {}).items():
            shares[key] = shares.get(key, 0.0) + share * card[weight] / max(total, 1)
    largest = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Share(name=key, share=share) for key, share in largest)


def _merge_duplicates(cards: list[dict[str, Any]]) -> float | None:
    if not all("duplicate_share" in card for card in cards):
        return None
    documents = sum(card["documents"] for card in cards)
    read = sum(card["documents"] / (1 - card["duplicate_share"]) for card in cards)
    return 1 - documents / read if read else 0.0


def _neighbors(cards: list[dict[str, Any]]) -> tuple[Neighbor, ...]:
    return tuple(
        Neighbor(index=row["domain"], cosine=row["cosine"])
        for card in cards
        for row in card.get("nearest", ())
    )


def _example(row: dict[str, Any]) -> Example:
    return Example(text=row["text"], source=row["source"], distance=row["distance"])


def _targets(corpus: Corpus, view: View, layer: Layer) -> tuple[Target, ...]:
    targets = []
    for entry in corpus.manifest.targets:
        histogram = view.sum_leaves(corpus.target(entry.name).leaf_histogram)
        largest = [int(i) for i in np.argsort(-histogram, kind="stable")[:TARGET_DOMAINS]]
        targets.append(
            Target(
                name=entry.name,
                train_documents=entry.train_documents,
                test_documents=entry.test_documents,
                effective=_effective(histogram),
                domains=tuple(
                    TargetDomain(
                        domain=layer.domains[i],
                        share=float(histogram[i]),
                        lift=float(histogram[i] / max(layer.domains[i].share, 1e-12)),
                    )
                    for i in largest
                    if histogram[i] >= SMALLEST_TARGET_SHARE
                ),
            )
        )
    return tuple(targets)


def _current(corpus: Corpus, name: str) -> Path:
    """The file, or the one that took its place when documents were added."""
    return corpus.path / current_name(corpus.manifest, name)


def _no_cards(folder: Path, error: FileNotFoundError) -> CorpusError:
    return CorpusError(
        f"{str(folder)!r} has no file {Path(error.filename).name}: it was built without domain cards, "
        "or copied without them. Copy the folders cards/ and tree/ too, or build the corpus again."
    )
