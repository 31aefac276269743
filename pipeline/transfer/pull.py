"""A corpus from an object store to a folder.

What counts as already there: a file of the right length whose content hashes to the right checksum. A file
gets its name when all of it is there and right; until then it ends in `.partial`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.corpus.manifest import (
    MANIFEST_FILE,
    FileEntry,
    Manifest,
    file_entry,
    parse_manifest,
)
from pipeline.corpus.versions import read_version
from pipeline.errors import CorpusError, MissingObjectError, StorageError
from pipeline.stores.object_store import PART_BYTES, ObjectStore
from pipeline.transfer.transfer import CONNECTIONS, PARTIAL, Meter, State, Transferred, transfer
from pipeline.whole_files import write_whole

ATTEMPTS = 3
"""How often a file is fetched whose content has the wrong checksum."""


def pull(
    url: str,
    folder: str | os.PathLike[str],
    *,
    version: int | None = None,
    force: bool = False,
    connections: int = CONNECTIONS,
    meter: Meter | None = None,
) -> Transferred:
    """Copy the corpus under the prefix `url` into `folder`, which is made if need be.

    The newest version, unless `version` asks for an earlier one; where the folder has an earlier one, only
    what was added is copied. `force` replaces another corpus in that folder; files that the new one does not
    name stay. Raises `CorpusError` (a damaged manifest, another corpus here, no space) and `StorageError`.
    """
    store = ObjectStore(url)
    manifest = read_version(
        lambda name: fetch_manifest(store, name), store.url, version=version, fingerprint=None
    )
    destination = _FolderDestination(Path(folder), store)
    try:
        return transfer(manifest, destination, force=force, connections=connections, meter=meter)
    except OSError as error:
        raise CorpusError(
            f"{error.filename or folder} cannot be written: {error.strerror}. Make room or choose another "
            "folder; the same command continues."
        ) from error


def fetch_manifest(store: ObjectStore, name: str = MANIFEST_FILE) -> Manifest:
    """The manifest under a prefix, checked.

    One that does not check out is fetched again: only what comes twice in a row is wrong in the store, and
    not on the way.
    """
    where = store.address(name)
    content = b""
    for _ in range(ATTEMPTS):
        try:
            before, content = content, store.read(name)
        except MissingObjectError:
            raise MissingObjectError(_missing(store.url, name)) from None
        try:
            return parse_manifest(content, where=where)
        except CorpusError as error:
            problem = error
        if content == before:
            break
    raise problem


def _missing(url: str, name: str) -> str:
    if name != MANIFEST_FILE:
        return (
            f"{url} has no {name}: a copy keeps the versions that it once was. Open the newest version, or "
            "the corpus that this was copied from."
        )
    return (
        f"{url} is not a corpus: it has no {MANIFEST_FILE}, which a push or a build writes last. Check the "
        "address, copy a corpus there with `braidstream push CORPUS URL`, or run an unfinished push again."
    )


class _FolderDestination:
    """Implements `pipeline.transfer.transfer.Destination`."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self.where = str(folder)
        self._folder = folder
        self._store = store

    def read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._folder / name, content)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def state(self, entry: FileEntry) -> State:
        path = self._path(entry)
        if not path.is_file():
            return State.OTHER if path.exists() else State.ABSENT
        if path.stat().st_size != entry.bytes:
            return State.OTHER
        found = file_entry(self._folder, entry.file)
        return State.RIGHT if found.sha256 == entry.sha256 else State.OTHER

    def copy(self, entry: FileEntry, on_position: Callable[[int], None]) -> None:
        path = self._path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < entry.bytes:
            raise CorpusError(
                f"{entry.file} has {entry.bytes:,} bytes, more than the disk of {self._folder} has left. "
                "Make room or choose another folder; the same command continues."
            )
        partial = path.with_name(path.name + PARTIAL)
        for _ in range(ATTEMPTS):
            found = self._fetch(entry, partial, on_position)
            if found == entry.sha256:
                partial.replace(path)
                return
        partial.unlink()
        raise StorageError(
            f"{self._store.address(entry.file)} is not what the manifest says: expected sha256 "
            f"{entry.sha256[:16]}…, found {found[:16]}… in each of {ATTEMPTS} attempts. The object is "
            "damaged or was replaced: push the corpus again."
        )

    def _fetch(self, entry: FileEntry, path: Path, on_position: Callable[[int], None]) -> str:
        """Fetch a file part after part; the sha256 of what came."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, entry.bytes, PART_BYTES):
                on_position(start)
                end = min(start + PART_BYTES, entry.bytes)
                part = self._store.read_range(entry.file, start, end)
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _path(self, entry: FileEntry) -> Path:
        """Where a file goes; never out of the folder, also not by a link that lies in it."""
        path = self._folder / entry.file
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise CorpusError(
                f"{path} leads out of {self._folder}: a link is in the way. Remove it, or choose another "
                "folder."
            )
        return path
