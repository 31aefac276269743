"""Which files make up the input: a file, a folder or a glob of known kinds, in sorted order."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clustering.errors import InputError

LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
PLAIN_SUFFIXES = (".txt", ".md")
SUFFIXES = (*LINE_SUFFIXES, *PLAIN_SUFFIXES, ".parquet", ".tar")
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file of the input."""

    path: Path
    name: str
    """Name relative to what was asked for: what provenance records, free of machine paths."""

    @property
    def suffix(self) -> str:
        """Its kind: the last suffix that is no compression, lower case."""
        suffixes = [s.lower() for s in self.path.suffixes]
        if suffixes and suffixes[-1] in COMPRESSIONS:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def size(self) -> int:
        """Bytes on disk; 0 of a file that cannot even be looked at, which reading it will report."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def identity(self) -> list[Any]:
        """What changes when the file does: name, bytes, time of change in nanoseconds."""
        try:
            stat = self.path.stat()
        except OSError:
            return [self.name]
        return [self.name, stat.st_size, stat.st_mtime_ns]


def find_inputs(corpus: str) -> list[InputFile]:
    """List the input files of a file, folder or glob, sorted by name.

    Raises:
        InputError: Nothing is there, or nothing of a known kind.
    """
    path = Path(corpus).expanduser()
    if path.is_file():
        files = [InputFile(path=path, name=path.name)]
    elif path.is_dir():
        files = [
            InputFile(path=found, name=found.relative_to(path).as_posix())
            for found in path.rglob("*")
            if not found.is_dir()
            and not any(p.startswith(".") for p in found.relative_to(path).parts)
        ]
    else:
        base = _fixed_folder(path)
        pattern = path.relative_to(base).as_posix()
        found = [p for p in base.glob(pattern) if not p.is_dir()] if pattern != "." else []
        files = [InputFile(path=p, name=p.relative_to(base).as_posix()) for p in found]
    known = sorted((f for f in files if f.suffix in SUFFIXES), key=lambda f: f.name)
    if known:
        return known
    found_text = f"only {files[0].name!r} and the like" if files else "nothing"
    raise InputError(
        f"{corpus!r}: found {found_text}; the input must be a file, folder or glob with files of the "
        f"kinds {', '.join(SUFFIXES)} (JSON Lines and text also as .gz, .zst). Check the path, or quote "
        "the glob so that the shell leaves it alone."
    )


def _fixed_folder(pattern: Path) -> Path:
    """The part of a glob before its first wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)
