"""One record of the input: where its text is, and what happens when it is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clustering.errors import InputError

TEXT_COLUMNS = (
    "text",
    "content",
    "raw_content",
    "document",
    "body",
    "article",
    "page_content",
    "txt",
)
"""Names tried, in this order, when no text column is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document as it was found."""

    text: str
    row: int
    """Line (JSON Lines) or record (other kinds) of its file, counted from 1."""


@dataclass(kw_only=True, slots=True)
class BadInput:
    """What happens to input that cannot be read, and how often it happened."""

    action: Literal["fail", "skip"] = "fail"
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    """The first few messages, for the closing note."""

    def report(self, where: str, problem: str, remedy: str) -> None:
        """Raise `InputError`, or count the case when bad input is skipped."""
        message = f"{where}: {problem}"
        if self.action == "fail":
            raise InputError(
                f"{message} {remedy} Or pass --on-bad-input skip to leave such input out."
            )
        self.skipped += 1
        if len(self.examples) < 5:
            self.examples.append(message)


class TextColumn:
    """Finds the text in a record; settles on a column at the first one."""

    def __init__(self, file_name: str, name: str | None) -> None:
        self.file_name = file_name
        self.name = name

    def choose(self, columns: Sequence[str], textual: Sequence[str]) -> str:
        """Settle on a column, given all columns and those that hold strings."""
        if self.name is None:
            candidates = [c for c in TEXT_COLUMNS if c in textual]
            if not candidates and len(textual) == 1:
                candidates = list(textual)
            if not candidates:
                raise InputError(
                    f"{self.file_name}: cannot tell which column holds the text. Its columns are "
                    f"{', '.join(columns) or '(none)'}; tried {', '.join(TEXT_COLUMNS)}. "
                    "Name it with --text-column."
                )
            self.name = candidates[0]
        elif self.name not in columns:
            raise InputError(
                f"{self.file_name}: has no column {self.name!r}, which --text-column asks for. "
                f"Its columns are {', '.join(columns) or '(none)'}."
            )
        return self.name

    def text_of(self, record: dict[str, Any], where: str, bad: BadInput) -> str | None:
        """The text of a record; None after a bad one. A null text is an empty document."""
        if self.name is None:
            self.choose(list(record), [k for k, v in record.items() if isinstance(v, str)])
        assert self.name is not None
        if self.name not in record:
            columns = ", ".join(map(str, record)) or "(none)"
            bad.report(
                where,
                f"has no column {self.name!r}; its columns are {columns}.",
                "Every record needs the text column: correct the record, or name another --text-column.",
            )
            return None
        value = record[self.name]
        if value is None:
            return ""
        if not isinstance(value, str):
            bad.report(
                where,
                f"column {self.name!r} holds {type(value).__name__} ({str(value)[:40]!r}), not text.",
                "The text column must hold strings: correct the record, or name another --text-column.",
            )
            return None
        if not _is_unicode(value):
            bad.report(
                where,
                f"column {self.name!r} holds half of a surrogate pair, which is no character.",
                "Text must be valid Unicode: correct the record.",
            )
            return None
        return value


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
