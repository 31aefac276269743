"""What `braidstream inspect` shows, gathered once for the table and for the page.

A view of k domains is a merge of the next finer level of the tree, so any k is described by that
level's cards (sizes, examples) and by sums of the per-leaf counts (keywords, sources).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards import merged_cards
from clustering.cards.cards import card_file, count_files, read_counts, top_sources
from clustering.cards.keywords import Keywords
from clustering.cards.terms import sum_leaves
from clustering.inspection.domain_facts import (
    Balance,
    Domain,
    Inspection,
    Layer,
    Source,
    Target,
    TargetDomain,
)
from pipeline import Corpus, CorpusError, View

MAX_DESCRIBED = 4_096
"""Layers with more domains than this are summarised only: nobody reads that many cards."""
TARGET_DOMAINS = 8
SMALLEST_TARGET_SHARE = 0.005
"""A domain with less of a target than this is not worth a line."""


def inspect_corpus(corpus: Corpus, *, k: int | None = None) -> Inspection:
    """Describe every level of `corpus` below the root; with `k`, the coarser levels and then k domains.

    Of an imported corpus names and sizes are known. Raises `CorpusError` when the corpus has no such k, or
    carries no cards.
    """
    counts = _Counts(corpus)
    shown = _granularities(corpus.levels, k)
    views = [corpus.domains(k=count) for _, count in shown]
    layers = tuple(
        _layer(corpus, counts, views[: i + 1], name=name) for i, (name, _) in enumerate(shown)
    )
    finest = max((i for i, layer in enumerate(layers) if layer.domains), default=None)
    # Where a target lies is known from its distances to centroids, which imported domains lack.
    targets: tuple[Target, ...] = ()
    if finest is not None and not _is_imported(corpus):
        targets = _targets(corpus, views[finest], layers[finest])
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
        self._corpus = corpus

    @cached_property
    def keywords(self) -> Keywords:
        return Keywords(*self._read("term"), self._read("language")[0])

    @cached_property
    def sources(self) -> tuple[Any, list[str]]:
        return self._read("source")

    def _read(self, name: str) -> tuple[Any, list[str]]:
        counts = read_counts(self._corpus, name)
        if counts is None:
            raise _without_cards(self._corpus, count_files(name)[0])
        return counts


def _layer(corpus: Corpus, counts: _Counts, views: list[View], *, name: str) -> Layer:
    """Describe the last of `views`, which lead to it from coarse to fine."""
    view = views[-1]
    imported = _is_imported(corpus)
    per_source = None if imported else sum_leaves(counts.sources[0], view.leaf_bounds)
    balance = _balance(view, per_source, name)
    if view.k > MAX_DESCRIBED:
        return Layer(balance=balance, domains=())
    parents = view.parents_in(views[-2]) if len(views) > 1 else None
    cards = _cards_per_domain(corpus, view)
    if per_source is None:
        keywords: Sequence[Sequence[str]] = [merged_cards.names(of) for of in cards]
        sources: Sequence[list[dict[str, Any]]] = [[] for _ in cards]
    else:
        keywords = counts.keywords.of(view.leaf_bounds, parents)
        sources = top_sources(per_source, counts.sources[1])
    tops = view.parents_in(views[0]).tolist()
    sizes = view.sizes
    schema = corpus.manifest.sample
    tokens_per_sample = schema.tokens_per_sample if schema and imported else None
    domains = tuple(
        Domain(
            index=i,
            parent=None if parents is None else int(parents[i]),
            top=tops[i],
            leaves=int(view.leaf_bounds[i + 1] - view.leaf_bounds[i]),
            documents=merged_cards.total(cards[i], "documents"),
            tokens=int(sizes[i]) * tokens_per_sample
            if tokens_per_sample
            else merged_cards.total(cards[i], "tokens"),
            samples=int(sizes[i]),
            share=float(sizes[i] / max(view.num_samples, 1)),
            keywords=tuple(keywords[i]),
            sources=tuple(
                Source(name=row["source"], documents=row["documents"], share=row["share"])
                for row in sources[i]
            ),
            examples=merged_cards.examples(cards[i]),
            farthest=merged_cards.farthest(cards[i]),
            languages=merged_cards.shares(cards[i], "languages", weight="documents"),
            scripts=merged_cards.shares(cards[i], "scripts", weight="tokens"),
            duplicate_share=merged_cards.duplicate_share(cards[i]),
            neighbors=merged_cards.neighbors(cards[i][0]) if view.k in corpus.levels else (),
        )
        for i in range(view.k)
    )
    return Layer(balance=balance, domains=domains)


def _balance(view: View, per_source: Any, name: str) -> Balance:
    shares = view.sizes / max(view.num_samples, 1)
    return Balance(
        name=name,
        k=view.k,
        largest_share=float(shares.max()),
        effective=_effective(shares),
        empty=int((view.sizes == 0).sum()),
        source_purity=None if per_source is None else _purity(per_source),
    )


def _purity(per_source: Any) -> float:
    documents = per_source.sum()
    largest = per_source.max(axis=1).sum() if per_source.shape[1] else 0
    return float(largest / documents) if documents else 0.0


def _effective(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _cards_per_domain(corpus: Corpus, view: View) -> list[list[dict[str, Any]]]:
    """The cards of the coarsest level that is at least as fine as `view`, grouped by its domains."""
    level = next(i for i, k in enumerate(corpus.levels) if k >= view.k)
    grouped: list[list[dict[str, Any]]] = [[] for _ in range(view.k)]
    for line in _extra(corpus, card_file(level)).splitlines():
        card = json.loads(line)
        first_leaf = card["leaves"][0]
        grouped[int(np.searchsorted(view.leaf_bounds, first_leaf, side="right")) - 1].append(card)
    return grouped


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
                        lift=float(histogram[i] / layer.domains[i].share)
                        if layer.domains[i].samples
                        else None,
                    )
                    for i in largest
                    if histogram[i] >= SMALLEST_TARGET_SHARE
                ),
            )
        )
    return tuple(targets)


def _extra(corpus: Corpus, name: str) -> bytes:
    """A file of the cards, the newest one where documents were added."""
    content = corpus.extra(name)
    if content is None:
        raise _without_cards(corpus, name)
    return content


def _without_cards(corpus: Corpus, name: str) -> CorpusError:
    return CorpusError(
        f"{corpus.address} has no file {name}: it was built without domain cards. Build the corpus again."
    )


def _is_imported(corpus: Corpus) -> bool:
    """Whether its domains are names that came with it: nothing was clustered, no text was read."""
    return corpus.manifest.build.get("imported") is True
