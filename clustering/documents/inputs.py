"""Which files make up the input: a file, a folder or a glob of known kinds, here or in an object store.

Either way the files are sorted by name, and names are relative to what was asked for, so that the same files
make the same corpus wherever they lie.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from clustering.documents.input_files import InputFile, LocalFile, RemoteFile, kind_of
from clustering.documents.name_pattern import matches, may_hold
from clustering.documents.records import BadInput
from clustering.errors import InputError
from pipeline.corpus.places import paths_below
from pipeline.stores.address import is_address, normalized
from pipeline.stores.object_store import ObjectStore

LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
PLAIN_SUFFIXES = (".txt", ".md")
SUFFIXES = (*LINE_SUFFIXES, *PLAIN_SUFFIXES, ".parquet", ".tar")


def find_inputs(corpus: str, bad: BadInput | None = None) -> list[InputFile]:
    """List the input files of a file, folder or glob, or of an address that means one, sorted by name.

    `bad` decides about folders that cannot be listed; without it they are an error.

    Raises:
        InputError: Nothing is there, or nothing of a known kind, or a folder that cannot be listed.
        StorageError: The object store cannot be listed: no such bucket, no credentials, no right to.
    """
    files = _remote_files(corpus) if is_address(corpus) else _local_files(corpus, bad or BadInput())
    known = sorted((f for f in files if kind_of(f.name) in SUFFIXES), key=lambda f: f.name)
    if known:
        return known
    if files:
        found = f"found only {files[0].name!r} and the like"
    elif is_address(corpus) or glob.has_magic(corpus) or Path(corpus).expanduser().exists():
        found = "found nothing"
    else:
        found = "there is no such file or folder"
    raise InputError(
        f"{corpus!r}: {found}; the input must be a file, folder or glob with files of the "
        f"kinds {', '.join(SUFFIXES)} (JSON Lines and text also as .gz, .zst). Check the path, or quote "
        "the glob so that the shell leaves it alone."
    )


def _local_files(corpus: str, bad: BadInput) -> Sequence[InputFile]:
    path = Path(corpus).expanduser()
    if path.is_file():
        return [LocalFile(path=path, name=path.name)]
    if path.is_dir():
        return files_below(path, bad)
    base = Path(*_fixed_parts(path.parts))
    pattern = _checked(path.relative_to(base).as_posix())
    if pattern == ".":
        return []
    found = _below(base, bad, lambda name: may_hold(name, pattern))
    return [file for file in found if matches(file.name, pattern)]


def files_below(folder: Path, bad: BadInput) -> list[LocalFile]:
    """All files of a folder and of those in it, but hidden ones, in any order.

    `bad` decides about folders that cannot be listed.
    """
    found = _below(folder, bad, lambda name: not _is_hidden(name))
    return [file for file in found if not _is_hidden(file.name)]


def _below(folder: Path, bad: BadInput, enters: Callable[[str], bool]) -> Iterator[LocalFile]:
    """What is no folder, in folders whose names below this one `enters` holds of."""

    def unlisted(place: str, why: str) -> None:
        bad.report(
            place,
            f"is a folder that cannot be listed ({why}).",
            "Give yourself the right to read it, or move it away.",
        )

    def name(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    for path in paths_below(folder, unlisted, enters=lambda below: enters(name(below))):
        yield LocalFile(path=path, name=name(path))


def _checked(pattern: str) -> str:
    if any("**" in part and part != "**" for part in pattern.split("/")):
        raise InputError(
            f"the glob {pattern!r} has '**' beside other characters; it means folders of any depth and "
            "stands alone between slashes. Write it so, such as **/*.jsonl."
        )
    return pattern


def _remote_files(corpus: str) -> Sequence[InputFile]:
    """The objects that an address means: one, all below a prefix, or those below it that fit a pattern."""
    address = normalized(corpus)
    scheme, _, place = address.partition("://")
    *folder, last = place.split("/")
    if glob.has_magic(place):
        fixed = "/".join(_fixed_parts(place.split("/")))
        pattern = _checked(place.removeprefix(fixed + "/"))
        return [f for f in _objects(f"{scheme}://{fixed}") if matches(f.name, pattern)]
    if folder and kind_of(last) in SUFFIXES:
        store = ObjectStore(f"{scheme}://{'/'.join(folder)}")
        facts = store.find(last)
        if facts is not None:
            return [RemoteFile(store=store, name=last, size=facts.bytes, mark=facts.mark)]
    return [f for f in _objects(address) if not _is_hidden(f.name)]


def _objects(address: str) -> list[RemoteFile]:
    store = ObjectStore(address)
    return [
        RemoteFile(store=store, name=name, size=facts.bytes, mark=facts.mark)
        for name, facts in store.listed().items()
    ]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _fixed_parts(parts: Sequence[str]) -> list[str]:
    """The folders of a glob before its first wildcard."""
    fixed: list[str] = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return fixed
