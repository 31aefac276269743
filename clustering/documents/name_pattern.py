"""Globs over names of objects and files: `pathlib`'s rules. Its own pass over what cannot be listed."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(name: str, pattern: str) -> bool:
    """Whether a name with `/` fits a pattern: `*` stays within a folder, `**` is any number of folders."""
    return _matches(name.split("/"), pattern.split("/"))


def may_hold(folder: str, pattern: str) -> bool:
    """Whether something below a folder of this name can fit a pattern."""
    parts, patterns = folder.split("/"), pattern.split("/")
    for part, wanted in zip(parts, patterns[:-1], strict=False):
        if wanted == "**":
            return True
        if not fnmatchcase(part, wanted):
            return False
    return len(parts) < len(patterns)


def _matches(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**" and len(patterns) > 1:
        return any(_matches(parts[skip:], patterns[1:]) for skip in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
