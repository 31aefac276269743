"""Labelled documents out of git repositories: a JSON Lines file per kind of text, cut at line ends.

    python -m benchmarks.git_documents CLONES --out DOCUMENTS

CLONES/OWNER/NAME is a clone of every repository in benchmarks/git_documents.toml, which says where each kind
comes from. For comparisons on text that nothing was tuned on; benchmarks.labelled_targets takes what this
writes.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tyro
from tqdm import tqdm

_KINDS = Path(__file__).with_suffix(".toml")
_SEED = 0
_LONGEST = 4_000  # characters of a document
_SHORTEST = 200
_LARGEST_FILE = 4 << 20  # bytes; larger ones are data more than text


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which clones, and how much of each kind."""

    clones: tyro.conf.Positional[Path]
    """Folder with a clone OWNER/NAME, bare or not, of every repository."""
    out: Path
    """Folder to write to."""
    kinds: Path = _KINDS
    """TOML file: a table per kind with `repository` (OWNER/NAME), `commit` and `files` (patterns)."""
    megabytes: float = 6.0
    """Characters of a kind at most, in millions; files are taken in random order."""


def main(options: Options) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    for kind, source in tqdm(tomllib.loads(options.kinds.read_text()).items(), unit="kinds"):
        clone = options.clones / source["repository"]
        with (options.out / f"{kind}.jsonl").open("w", encoding="utf-8") as file:
            left = options.megabytes * 1e6
            for document in documents(clone, source["commit"], source["files"]):
                file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
                left -= len(document)
                if left < 0:
                    break


def documents(clone: Path, commit: str, patterns: list[str]) -> Iterator[str]:
    """Documents of the files that match one of `patterns`, in a random order of files."""
    names = []
    for entry in git(clone, "ls-tree", "-r", "-l", "-z", commit).decode().split("\0")[:-1]:
        about, _, name = entry.partition("\t")
        size = about.split()[3]
        is_small = size.isdigit() and int(size) < _LARGEST_FILE  # a submodule has "-"
        if is_small and any(fnmatch(name, pattern) for pattern in patterns):
            names.append(name)
    names.sort()
    if not names:
        raise SystemExit(f"{clone} has no file like {', '.join(patterns)} at {commit}.")
    for row in np.random.default_rng(_SEED).permutation(len(names)):
        data = git(clone, "cat-file", "blob", f"{commit}:{names[row]}")
        try:
            text = text_of(Path(names[row]).suffix, data)
        except (UnicodeDecodeError, ElementTree.ParseError):
            continue
        yield from pieces(text)


def git(clone: Path, *arguments: str) -> bytes:
    """Standard output of a git command in `clone`."""
    return subprocess.run(["git", "-C", clone, *arguments], check=True, capture_output=True).stdout


def text_of(suffix: str, data: bytes) -> str:
    """What a reader would see of a file: of XML the text without headers, of others all."""
    if suffix == ".xml":
        return "\n".join(text_below(ElementTree.fromstring(data)))
    return data.decode("utf-8")


def text_below(element: ElementTree.Element) -> Iterator[str]:
    """The lines of text in and below an element, without what is below a header."""
    if not element.tag.lower().endswith("header"):
        yield from filter(None, [" ".join((element.text or "").split())])
        for child in element:
            yield from text_below(child)
            yield from filter(None, [" ".join((child.tail or "").split())])


def pieces(text: str) -> Iterator[str]:
    """Parts of at most 4,000 characters in order, each up to a line end where its second half has one."""
    start = 0
    while start < len(text):
        end = start + _LONGEST
        if end < len(text):
            end = max(start + _LONGEST // 2, text.rfind("\n", start, end) + 1)
        piece = text[start:end].strip()
        if len(piece) >= _SHORTEST:
            yield piece
        start = end


if __name__ == "__main__":
    main(tyro.cli(Options))
