"""Cards of several domains told as those of one: any view is a merge of the next finer level.

A corpus that was imported has cards of names and sizes alone: what no card says, the merge does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clustering.cards.cards import NUM_EXAMPLES, SHARE_DIGITS
from clustering.cards.keywords import NUM_KEYWORDS
from clustering.inspection.domain_facts import Example, Neighbor, Share

Cards = Sequence[dict[str, Any]]
"""Lines of `cards/level*.jsonl`."""


def total(cards: Cards, name: str) -> int | None:
    """The sum of a count; None when a card does not say it."""
    if not all(name in card for card in cards):
        return None
    return sum(int(card[name]) for card in cards)


def names(cards: Cards) -> tuple[str, ...]:
    """The first keyword of each card, the largest domain first: what imported domains are called."""
    largest = sorted(cards, key=lambda card: -card["samples"])[:NUM_KEYWORDS]
    return tuple(card["keywords"][0] for card in largest if card["keywords"])


def examples(cards: Cards) -> tuple[Example, ...]:
    """Central documents of the largest parts in turn."""
    largest = sorted(cards, key=lambda card: -card.get("tokens", 0))[:NUM_EXAMPLES]
    ranked = [
        card["examples"][rank]
        for rank in range(NUM_EXAMPLES)
        for card in largest
        if rank < len(card.get("examples", ()))
    ]
    return tuple(_example(row) for row in ranked[:NUM_EXAMPLES])


def farthest(cards: Cards) -> Example | None:
    """The document that is farthest from the center of its part."""
    rows = [card["farthest"] for card in cards if card.get("farthest")]
    return _example(max(rows, key=lambda row: float(row["distance"]))) if rows else None


def shares(cards: Cards, name: str, *, weight: str) -> tuple[Share, ...]:
    """Mean of the shares in the cards, each weighing as much as its documents or tokens."""
    whole = sum(card[weight] for card in cards if card.get(name))
    found: dict[str, float] = {}
    for card in cards:
        for key, share in card.get(name, {}).items():
            found[key] = found.get(key, 0.0) + share * card[weight] / max(whole, 1)
    largest = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Share(name=key, share=share) for key, share in largest)


def duplicate_share(cards: Cards) -> float | None:
    """Of the documents read, how many were dropped as duplicates; None when a card does not say it."""
    if not all("duplicate_share" in card for card in cards):
        return None
    documents = sum(card["documents"] for card in cards)
    # 1.0 says no more than that less than half of the last digit is missing.
    least = 0.5 * 10**-SHARE_DIGITS
    read = sum(card["documents"] / max(1 - card["duplicate_share"], least) for card in cards)
    return 1 - documents / read if read else 0.0


def neighbors(card: dict[str, Any]) -> tuple[Neighbor, ...]:
    """The nearest domains of a domain that is not merged."""
    return tuple(
        Neighbor(index=row["domain"], cosine=row["cosine"]) for row in card.get("nearest", ())
    )


def _example(row: dict[str, Any]) -> Example:
    return Example(text=row["text"], source=row["source"], distance=row["distance"])
