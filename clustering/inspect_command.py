"""`braidstream inspect`: what the domains of a corpus are, as a table and as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipeline import CorpusError, open_corpus

ROWS = 100
READABLE_DOMAINS = 64
"""Without --level and --k, the finest level of at most this many domains is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectConfig:
    """Show what the domains of a corpus are: sizes, keywords, sources, examples, balance.

    The table has one granularity, the page all of them; nothing is built again for another.

      braidstream inspect corpus
      braidstream inspect corpus --k 16
      braidstream inspect corpus --html domains.html          (a page to open in a browser)
    """

    corpus: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS")]
    """A corpus that `braidstream build` or `import` wrote: a folder, or an address such as s3://bucket/corpus."""
    level: int | None = None
    """Show the domains of this level of the tree: 1 is the first split, the last one the leaves."""
    k: int | None = None
    """Show this many domains, any number from 1 to the number of leaves."""
    html: Path | None = None
    """Also write one self-contained page: maps, drill-down, search, examples. It needs no network."""


def main(argv: list[str]) -> int:
    """Run the command; return its exit code."""
    config = tyro.cli(
        InspectConfig, prog="braidstream inspect", args=argv, config=(tyro.conf.DisallowNone,)
    )
    if config.level is not None and config.k is not None:
        raise CorpusError(
            f"--level {config.level} and --k {config.k} both choose a granularity; pass one of them."
        )
    corpus = open_corpus(config.corpus)
    k = config.k if config.level is None else corpus.domains(level=config.level).k

    from clustering.inspection.inspection import inspect_corpus
    from clustering.inspection.table import print_inspection

    # The page drills down from the coarsest level to the finest; the table shows one of them.
    inspection = inspect_corpus(corpus, k=k)
    readable = [layer for layer in inspection.layers if layer.balance.k <= READABLE_DOMAINS]
    chosen = inspection.layers[-1] if k is not None or not readable else readable[-1]
    print_inspection(inspection, chosen, rows=ROWS)
    if config.html is not None:
        from clustering.inspection.page import write_page

        write_page(inspection, config.html)
        print(f"page: {config.html}")
    return 0
