"""Who won on a target, and by how much: the numbers behind the report's first sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.results.table import Row, rows_of

REFERENCES = ("natural", "importance")
"""Mixers that everything is measured against: doing nothing, and matching the target's histogram."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """How far the winner is ahead of another row."""

    row: Row
    nats: float
    """Final target loss of that row less the winner's; 0 or more."""
    within_spread: bool
    """Whether the margin is smaller than the seeds' standard deviations of the two together."""

    @property
    def perplexity_share(self) -> float:
        """By which share the winner's perplexity is lower: 0.1 is ten percent."""
        return 1.0 - math.exp(-self.nats)


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The outcome on one target, by final target loss."""

    target: str
    winner: Row
    references: tuple[Margin, ...]
    """The references that ran and are not the winner."""
    second: Margin | None
    """The next best row, whichever it is."""

    @property
    def second_is_news(self) -> bool:
        """Whether the next best row is worth a line: it is no reference, or hardly behind."""
        if self.second is None:
            return False
        return self.second.within_spread or self.second not in self.references

    def sentence(self) -> str:
        """The outcome in words, for the terminal and for results.md."""
        text = f"{self.target}: {self.winner.label} ends lowest at {self.winner.final.text()} nats"
        behind = [f"{m.nats:.3f} below {m.row.label}" for m in self.references]
        if behind:
            text += f", {' and '.join(behind)}"
        if self.second is not None and self.second.within_spread:
            text += f"; within the spread of the seeds of {self.second.row.label}"
        return text + "."


def make_headlines(rows: Sequence[Row]) -> list[Headline]:
    """One headline per target with at least two rows whose loss is a number."""
    headlines = (_headline(target, rows) for target in dict.fromkeys(row.target for row in rows))
    return [headline for headline in headlines if headline is not None]


def _headline(target: str, rows: Sequence[Row]) -> Headline | None:
    ordered = sorted(
        (row for row in rows_of(rows, target) if math.isfinite(row.final.mean)),
        key=lambda row: row.final.mean,
    )
    if len(ordered) < 2:
        return None
    winner, second = ordered[:2]
    references = (_reference(name, ordered) for name in REFERENCES)
    return Headline(
        target=target,
        winner=winner,
        references=tuple(_margin(winner, row) for row in references if row not in (None, winner)),
        second=_margin(winner, second),
    )


def _reference(mixer: str, ordered: Sequence[Row]) -> Row | None:
    """The best row of a reference mixer at any granularity: the strongest form of the baseline."""
    return next((row for row in ordered if row.mixer == mixer), None)


def _margin(winner: Row, other: Row | None) -> Margin:
    assert other is not None
    nats = other.final.mean - winner.final.mean
    deviations = [winner.final.deviation, other.final.deviation]
    spread = math.hypot(*(0.0 if math.isnan(deviation) else deviation for deviation in deviations))
    return Margin(row=other, nats=nats, within_spread=nats <= spread)
