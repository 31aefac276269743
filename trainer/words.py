"""What the types of settings say: which words they allow, since Python does not look, and what to read a
text as."""

from __future__ import annotations

from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

Kind = type[int] | type[float] | tuple[str, ...]
"""What a setting is read as: a number of a type, or one of some words."""


def unknown_word(settings: Any) -> tuple[str, str] | None:
    """The first setting that is none of the words of its type, a `Literal`, and these words, listed."""
    for name, words in _words_of(type(settings)).items():  # type: ignore[arg-type]
        if getattr(settings, name) not in words:
            return name, ", ".join(word for word in words if word is not None)
    return None


def read_as(kind: type) -> dict[str, Kind]:
    """What the text of each setting, a number or a word, is read as."""
    words = _words_of(kind)
    return {
        name: tuple(word for word in words[name] if word is not None)
        if name in words
        else next(part for part in (hint, *get_args(hint)) if part in (int, float))
        for name, hint in get_type_hints(kind).items()
    }


@cache
def _words_of(kind: type) -> dict[str, list[str | None]]:
    """By setting; None is among them where a setting may be left open."""
    found: dict[str, list[str | None]] = {}
    for name, hint in get_type_hints(kind).items():
        parts = (hint, *get_args(hint))
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        if words:
            found[name] = [*words, None] if NoneType in parts else words
    return found
