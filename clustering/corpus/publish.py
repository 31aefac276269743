"""`braidstream build --out s3://…`: a build works in a local folder, which is then copied to the store."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from clustering.errors import BuildError
from clustering.work.progress import Progress
from clustering.work.stages import write_json
from pipeline.corpus.manifest import MANIFEST_FILE, Manifest
from pipeline.stores.object_store import ObjectStore
from pipeline.transfer.push import push
from pipeline.transfer.transfer import UNFINISHED, claimed_fingerprint

RECORD = "published.json"


class Publication:
    """The copy of one work folder under one address.

    Remembers in the work folder which corpora it has begun to copy, so that a build with other options may
    replace what an earlier one of the same folder has put there, and nothing else.
    """

    def __init__(self, folder: Path, address: str, work: Path) -> None:
        self._folder = folder
        self._store = ObjectStore(address)
        self._record = work / RECORD

    def check(self) -> None:
        """Ask, before the long work, whether the place can be reached and is free.

        Raises `StorageError` when it cannot be reached, and `BuildError` when a corpus is there that did not
        come from this folder.
        """
        ours = self._begun()
        for fingerprint in self._there():
            if fingerprint not in ours:
                raise BuildError(
                    f"{self._store.url} holds a corpus ({fingerprint[:12]}…) that was not built in "
                    f"{str(self._folder)!r}. Give another --out, or delete that corpus first."
                )

    def copy(self, manifest: Manifest, progress: Progress) -> None:
        """Copy what is not there yet, the manifest last; a copy that was stopped goes on.

        Raises `StorageError` when the store refuses.
        """
        self.check()
        replaces = any(fingerprint != manifest.fingerprint for fingerprint in self._there())
        begun = self._begun()
        if manifest.fingerprint not in begun:
            write_json(self._record, [*begun, manifest.fingerprint])
        total_bytes = sum(entry.bytes for entry in manifest.files)
        with progress.task("copy", unit="bytes", total=total_bytes):
            push(self._folder, self._store.url, force=replaces, meter=_Meter(progress))

    def _begun(self) -> list[str]:
        return list(json.loads(self._record.read_text("utf-8"))) if self._record.is_file() else []

    def _there(self) -> list[str]:
        """Fingerprints of what is under the address, complete or not."""
        # Listing tells a missing bucket from an empty one; asking for a single object does not.
        names = {name for name, _ in self._store.list()} & {MANIFEST_FILE, UNFINISHED}
        return [claimed_fingerprint(self._store.read(name)) for name in sorted(names)]


class _Meter:
    """A `pipeline.transfer.transfer.Meter` that shows a progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def begin(self, *, total_bytes: int, kept_bytes: int) -> None:
        self._progress.skip(kept_bytes)

    def advance(self, nbytes: int) -> None:
        with self._lock:
            self._progress.advance(nbytes)
