"""Plain JSON to dataclasses, taking nothing that they do not describe: it may come from anywhere."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.errors import CorpusError

T = TypeVar("T")

_hints_of = cache(get_type_hints)
"""Remembered, for a manifest has an object for every shard."""


def from_json(kind: type[T], content: Any, where: str) -> T:
    """Build the dataclass `kind` from plain JSON, refusing missing and unknown fields."""
    if not isinstance(content, dict):
        raise CorpusError(f"{where}: {kind.__name__} should be an object, found {content!r}.")
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(content) - known):
        raise CorpusError(f"{where}: {kind.__name__} has the unknown fields {unknown}.")
    hints = _hints_of(kind)  # type: ignore[arg-type]
    values = {
        name: _convert(hints[name], value, f"{where}: {name}") for name, value in content.items()
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise CorpusError(f"{where}: {kind.__name__} is incomplete ({error}).") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise CorpusError(f"{where} should be a list, found {value!r}.")
        return tuple(_convert(get_args(hint)[0], item, where) for item in value)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_json(hint, value, where)
    if get_origin(hint) is dict:
        hint = dict
    if hint is int and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise CorpusError(f"{where} should be a whole number, found {value!r}.")
    if hint is not Any and hint is not int and not isinstance(value, hint):
        raise CorpusError(f"{where} should be of type {hint.__name__}, found {value!r}.")
    return value
