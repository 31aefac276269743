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


MAX_EXAMPLES = 1_000
"""Messages about skipped input that are kept; all are counted."""
SHOWN_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document as it was found."""

    text: str
    row: int
    """Line (JSON Lines) or record (other kinds) of its file, counted from 1."""
    id: str | None = None
    """What the input calls it, where an id column was asked for."""


@dataclass(kw_only=True, slots=True)
class BadInput:
    """What happens to input that cannot be read, and how often it happened."""

    action: Literal["fail", "skip"] = "fail"
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    """The first messages, for whoever wants to mend it."""

    def report(self, where: str, problem: str, remedy: str) -> None:
        """Raise `InputError`, or count the case when bad input is skipped."""
        message = f"{where}: {problem}"
        if self.action == "fail":
            raise InputError(
                f"{message} {remedy} Or pass --on-bad-input skip to leave such input out."
            )
        self.count(message)

    def count(self, message: str) -> None:
        """Count a case that is skipped."""
        self.skipped += 1
        if len(self.examples) < MAX_EXAMPLES:
            # The name of a column may hold half of a surrogate pair, which no file and no terminal takes.
            self.examples.append(message.encode("utf-8", "backslashreplace").decode())


class Columns:
    """Finds the text, and the id where one is asked for, in a record; settles on the text's column once."""

    def __init__(self, file_name: str, text: str | None, identity: str | None) -> None:
        self.file_name = file_name
        self.text = text
        self.identity = identity

    def choose(self, columns: Sequence[str], textual: Sequence[str], nulls: Sequence[str]) -> str:
        """Settle on the text's column, given all columns, those that hold strings and those that hold null.

        Raises `InputError` when there is none, or when the id's is missing.
        """
        if self.text is None:
            candidates = [c for of_kind in (textual, nulls) for c in TEXT_COLUMNS if c in of_kind]
            # The only column of strings, unless one is there that should hold them and does not here.
            if not candidates and len(textual) == 1 and not set(TEXT_COLUMNS) & set(columns):
                candidates = list(textual)
            if not candidates:
                raise InputError(
                    f"{self.file_name}: cannot tell which column holds the text. Its columns are "
                    f"{', '.join(columns) or '(none)'}; tried {', '.join(TEXT_COLUMNS)}. "
                    "Name it with --text-column."
                )
            self.text = candidates[0]
        for option, name in (("--text-column", self.text), ("--id-column", self.identity)):
            if name is not None and name not in columns:
                raise InputError(
                    f"{self.file_name}: has no column {name!r}, which {option} asks for. "
                    f"Its columns are {', '.join(columns) or '(none)'}: name one of them."
                )
        return self.text

    def document_of(
        self, record: dict[str, Any], row: int, where: str, bad: BadInput
    ) -> Document | None:
        """The document in a record; None after a bad one. A null text is an empty document."""
        if self.text is None:
            try:
                chosen = self.choose(
                    list(record),
                    [name for name, value in record.items() if isinstance(value, str)],
                    [name for name, value in record.items() if value is None],
                )
            except InputError as error:
                problem = str(error).removeprefix(f"{self.file_name}: ")
                bad.report(where, problem, "Or correct the record.")
                return None
            if record[chosen] is None:
                self.text = None  # a later record may have it under another name
                return Document(text="", row=row)
        assert self.text is not None
        text = self._value(record, self.text, "--text-column", where, bad)
        if text is None:
            return None
        if self.identity is None:
            return _checked(Document(text=text, row=row), where, bad)
        identity = self._value(record, self.identity, "--id-column", where, bad)
        return (
            None
            if identity is None
            else _checked(Document(text=text, row=row, id=identity), where, bad)
        )

    def _value(
        self, record: dict[str, Any], name: str, option: str, where: str, bad: BadInput
    ) -> str | None:
        if name not in record:
            columns = ", ".join(map(str, record)) or "(none)"
            bad.report(
                where,
                f"has no column {name!r}; its columns are {columns[:200]}.",
                f"Every record needs it: correct the record, or name another {option}.",
            )
            return None
        value = record[name]
        if option == "--id-column" and isinstance(value, int):
            return str(value)
        if value is None and option == "--text-column":
            return ""
        if not isinstance(value, str):
            bad.report(
                where,
                f"column {name!r} holds {type(value).__name__} ({str(value)[:40]!r}), not text.",
                f"The column must hold strings: correct the record, or name another {option}.",
            )
            return None
        return value


def _checked(document: Document, where: str, bad: BadInput) -> Document | None:
    if not all(_is_unicode(text) for text in (document.text, document.id or "")):
        bad.report(
            where,
            "its text or id holds half of a surrogate pair, which is no character.",
            "Text must be valid Unicode: correct the record.",
        )
        return None
    return document


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
