"""The table of a comparison for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from trainer.results.table import COLUMNS, Row, best_rows, rows_of


def make_tables(rows: Sequence[Row]) -> list[Table]:
    """One table per target; the best of a column is bold and green."""
    return [
        _table(target, rows_of(rows, target)) for target in dict.fromkeys(r.target for r in rows)
    ]


def _table(target: str, rows: Sequence[Row]) -> Table:
    table = Table(title=Text(target), title_justify="left", title_style="bold", box=None)
    best = [best_rows(rows, column) for column in COLUMNS]
    for i, column in enumerate(COLUMNS):
        table.add_column(
            column.title,
            justify="right" if i else "left",
            header_style="dim",
            no_wrap=i == 0,
        )
    for i, row in enumerate(rows):
        texts = [column.text(row) for column in COLUMNS]
        table.add_row(*(Text(t, "bold green" if i in best[c] else "") for c, t in enumerate(texts)))
    return table
