"""What domains are called: their keywords from the corpus cards, where the view is a level."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from pipeline import Corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainNames:
    """Names of the domains of one view."""

    keywords: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Keywords by domain; empty for a view that is no level, which has no cards."""

    def short(self, domain: int) -> str:
        """`17 · dough, oven, flour`: for legends."""
        return self._name(domain, 3)

    def long(self, domain: int) -> str:
        """The same with six keywords: for hovers."""
        return self._name(domain, 6)

    def _name(self, domain: int, count: int) -> str:
        words = self.keywords.get(domain, ())[:count]
        return f"{domain} · {', '.join(words)}" if words else f"domain {domain}"


NamesOf = Callable[[int], DomainNames]
"""The names of the view of k domains."""


def names_from_corpus(corpus: Corpus) -> NamesOf:
    """Read names from the cards of `corpus`, each level once and only when a chart asks for it."""
    levels = corpus.levels

    @cache
    def names_of(k: int) -> DomainNames:
        if k not in levels:
            return DomainNames()
        content = corpus.extra(f"cards/level{levels.index(k)}.jsonl")
        if content is None:
            return DomainNames()
        # Bytes: as text, lines would also end at U+2028, which examples may hold.
        cards = [json.loads(line) for line in content.splitlines()]
        return DomainNames(keywords={card["domain"]: tuple(card["keywords"]) for card in cards})

    return names_of
