"""The inspection of a corpus in a terminal. Documents are foreign text, which must not steer it."""

from __future__ import annotations

import re

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from clustering.inspection.domain_facts import Domain, Inspection, Layer

EXAMPLE_CHARACTERS = 200
KEYWORDS = 6
TARGET_ROWS = 3
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def print_inspection(inspection: Inspection, layer: Layer, *, rows: int) -> None:
    """Print the corpus' facts, the balance of every layer, up to `rows` domains of one, the targets."""
    console = Console()
    corpus = inspection.corpus
    counts = corpus.manifest.counts
    schema = corpus.manifest.sample
    tokens = f"{counts.tokens:,} tokens, " if schema else ""
    samples = f"samples of {schema.tokens_per_sample} tokens" if schema else "samples"
    console.print(
        f"[bold]{escape(corpus.address)}[/bold]  {counts.documents:,} documents, {tokens}"
        f"{corpus.num_samples:,} {samples}, {corpus.num_leaves:,} leaves  "
        f"[dim]{corpus.fingerprint[:12]}[/dim]",
        highlight=False,
    )
    console.print(balance_table(inspection))
    console.print(domain_table(layer, rows=rows))
    if len(layer.domains) > rows:
        console.print(
            f"… and {len(layer.domains) - rows:,} more: --html shows all of them, --k fewer."
        )
    elif not layer.domains:
        console.print(f"{layer.balance.k:,} domains are too many to list: choose a smaller --k.")
    if inspection.targets:
        console.print(target_table(inspection))


def balance_table(inspection: Inspection) -> Table:
    """How evenly the samples are spread, one row per layer."""
    table = _table("Balance")
    for column in (
        "granularity",
        "domains",
        "largest share",
        "effective",
        "empty",
        "source purity",
    ):
        table.add_column(column, justify="left" if column == "granularity" else "right")
    for layer in inspection.layers:
        balance = layer.balance
        table.add_row(
            balance.name,
            f"{balance.k:,}",
            f"{balance.largest_share:.1%}",
            f"{balance.effective:,.1f}",
            f"{balance.empty:,}",
            "" if balance.source_purity is None else f"{balance.source_purity:.2f}",
        )
    return table


def domain_table(layer: Layer, *, rows: int) -> Table:
    """One row per domain: size, keywords, sources, the most central document."""
    table = _table(f"Domains, {layer.balance.name}")
    for column in ("#", "share", "samples", "tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("keywords, central document", ratio=3, overflow="ellipsis")
    table.add_column("sources", ratio=2)
    for domain in layer.domains[:rows]:
        words = Text(", ".join(domain.keywords[:KEYWORDS]))
        example = Text(_first_words(domain), style="dim", no_wrap=True, overflow="ellipsis")
        table.add_row(
            str(domain.index),
            f"{domain.share:.1%}",
            f"{domain.samples:,}",
            "" if domain.tokens is None else f"{domain.tokens:,}",
            Group(words, example),
            escape(_sources(domain)),
        )
    return table


def target_table(inspection: Inspection) -> Table:
    """Where each target lies: its largest domains, with their keywords."""
    table = _table(f"Targets, {inspection.finest.balance.name}")
    table.add_column("target")
    table.add_column("train", justify="right")
    table.add_column("test", justify="right")
    table.add_column("effective", justify="right")
    table.add_column("largest domains (against natural)", ratio=1)
    for target in inspection.targets:
        largest = [
            f"#{row.domain.index} {row.share:.0%} ({_lift(row.lift)}) "
            + ", ".join(row.domain.keywords[:KEYWORDS])
            for row in target.domains[:TARGET_ROWS]
        ]
        table.add_row(
            escape(target.name),
            f"{target.train_documents:,}",
            f"{target.test_documents:,}",
            f"{target.effective:.1f}",
            Text("\n".join(largest), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE_HEAD
    )


def _lift(lift: float | None) -> str:
    return "empty" if lift is None else f"{lift:.1f}x"


def _sources(domain: Domain) -> str:
    named = ", ".join(f"{source.name} {source.share:.0%}" for source in domain.sources[:2])
    return _CONTROLS.sub(" ", named)


def _first_words(domain: Domain) -> str:
    if not domain.examples:
        return ""
    return " ".join(_CONTROLS.sub(" ", domain.examples[0].text).split())[:EXAMPLE_CHARACTERS]
