"""A corpus folder to an object store.

What counts as already there: an object of the right length that carries the right checksum in its metadata,
where this program put it together with the content, which it had checked on the way. Where the metadata
is missing, because another tool copied the object, its content is read and hashed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.corpus.manifest import FileEntry, Manifest
from pipeline.errors import CorpusError, StorageError
from pipeline.stores.object_store import PART_BYTES, ObjectStore
from pipeline.transfer.transfer import CONNECTIONS, Meter, State, Transferred, transfer


def push(
    folder: str | os.PathLike[str],
    url: str,
    *,
    force: bool = False,
    verify: bool = False,
    connections: int = CONNECTIONS,
    meter: Meter | None = None,
) -> Transferred:
    """Copy the corpus in `folder` to the prefix `url`; over an earlier version of it, only what was added.

    With `verify` every object is read back and hashed, whether it was copied now or before; without it the
    store's word is taken for content that it acknowledged. `force` replaces another corpus under that prefix;
    objects that the new one does not name stay. Raises `CorpusError` (a damaged or changed file here, another
    corpus there) and `StorageError`.
    """
    source = Path(folder)
    manifest = Manifest.read(source)
    destination = _StoreDestination(ObjectStore(url), source, verify=verify)
    return transfer(manifest, destination, force=force, connections=connections, meter=meter)


class _StoreDestination:
    """Implements `pipeline.transfer.transfer.Destination`."""

    def __init__(self, store: ObjectStore, source: Path, *, verify: bool) -> None:
        self.where = store.url
        self._store = store
        self._source = source
        self._verify = verify

    def read(self, name: str) -> bytes | None:
        return None if self._store.find(name) is None else self._store.read(name)

    def write(self, name: str, content: bytes) -> None:
        self._store.write(name, content)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def state(self, entry: FileEntry) -> State:
        found = self._store.find(entry.file)
        if found is None:
            return State.ABSENT
        if found.bytes != entry.bytes:
            return State.OTHER
        sha256 = found.sha256
        if self._verify or sha256 is None:
            sha256 = self._hashed(entry)
        return State.RIGHT if sha256 == entry.sha256 else State.OTHER

    def copy(self, entry: FileEntry, on_position: Callable[[int], None]) -> None:
        path = self._source / entry.file
        try:
            found = path.stat().st_size
            if found != entry.bytes:
                raise CorpusError(
                    f"{path} has {found:,} bytes; the manifest says {entry.bytes:,}. Build or pull the "
                    "corpus again before pushing it."
                )
            # A link that leads out of the folder does no harm here: what has not the checksum that the
            # manifest promises is never committed, so nothing leaves that its author did not know.
            self._store.write(entry.file, path, sha256=entry.sha256, on_position=on_position)
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error
        if self._verify and self._hashed(entry) != entry.sha256:
            raise StorageError(
                f"{self._store.address(entry.file)} was written and reads back as something else: the store, "
                "or the way to it, damages data. Push again; what is right is kept."
            )

    def _hashed(self, entry: FileEntry) -> str:
        digest = hashlib.sha256()
        for start in range(0, entry.bytes, PART_BYTES):
            end = min(start + PART_BYTES, entry.bytes)
            digest.update(self._store.read_range(entry.file, start, end))
        return digest.hexdigest()
