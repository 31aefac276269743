"""Copying a corpus: look at what is there, copy what is not, put the manifest last.

`push.py` and `pull.py` each say what their destination is; the order of things is here, and is the same both
ways. A copy that was stopped, however it was, is continued by the same call. Over an earlier version of the
same corpus only what was added is copied, and that version stays as it is for its readers. A manifest is not
trusted: its names cannot leave the corpus, and what has not the promised checksum is never put in place.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from pipeline.corpus.manifest import (
    MANIFEST_FILE,
    FileEntry,
    Manifest,
    is_manifest_file,
    version_file,
)
from pipeline.errors import CorpusError
from pipeline.stores.address import inside

PARTIAL = ".partial"
"""What the name of a file ends in until all of it is there."""
UNFINISHED = MANIFEST_FILE + PARTIAL
"""The manifest under another name: whose copy has begun here, and is not complete."""
CONNECTIONS = 8


class State(Enum):
    """What a destination has under the name of a file."""

    RIGHT = "the file, with the right length and checksum"
    ABSENT = "nothing"
    OTHER = "something else"


class Destination(Protocol):
    """Where a corpus is copied to."""

    where: str

    def read(self, name: str) -> bytes | None:
        """A small file; None when there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Put a small file in place, whole or not at all."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...

    def state(self, entry: FileEntry) -> State:
        """Compare what is there with what should be."""
        ...

    def copy(self, entry: FileEntry, on_position: Callable[[int], None]) -> None:
        """Copy one file from the source, checked, whole or not at all.

        `on_position` gets the number of bytes done so far, which may fall back; what it raises stops it.
        """
        ...


class Meter(Protocol):
    """Is told how far a transfer is; may be called from many threads."""

    def begin(self, *, total_bytes: int, kept_bytes: int) -> None:
        """`kept_bytes` of the `total_bytes` were there already."""
        ...

    def advance(self, nbytes: int) -> None:
        """More bytes were copied; fewer than none when a file is begun again."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Transferred:
    """What a transfer did."""

    copied_files: int
    copied_bytes: int
    kept_files: int
    """Files that were there already, the manifest not counted."""
    kept_bytes: int


def transfer(
    manifest: Manifest,
    destination: Destination,
    *,
    force: bool,
    connections: int,
    meter: Meter | None,
) -> Transferred:
    """Copy the corpus of `manifest` to `destination`; the manifest comes last.

    Raises `CorpusError` when another corpus, or somebody's file, is in the way and `force` is not set.
    """
    files = checked_files(manifest)
    there = destination.read(MANIFEST_FILE)
    complete, begun = _claimed(there), _claimed(destination.read(UNFINISHED))
    versions = (*manifest.earlier, manifest.fingerprint)
    ours = complete in versions or begun in versions
    for found, how in ((complete, "holds"), (begun, "has the unfinished copy of")):
        if found is not None and found not in versions and not force:
            raise CorpusError(
                f"{destination.where} {how} another corpus ({found[:12]}…; this one is "
                f"{manifest.fingerprint[:12]}…). Choose another place, or say --force to replace it."
            )
    states = _states(files, destination, connections)
    foreign = [entry.file for entry, state in states if state is State.OTHER]
    if foreign and not ours and not force:
        more = f" and {len(foreign) - 1:,} more like it" if len(foreign) > 1 else ""
        raise CorpusError(
            f"{destination.where} has {foreign[0]!r}{more}, which is not the file of this corpus. Choose "
            "another place, or say --force to replace what is there."
        )
    missing = [entry for entry, state in states if state is not State.RIGHT]
    total_bytes = sum(entry.bytes for entry in files)
    copied_bytes = sum(entry.bytes for entry in missing)
    if meter is not None:
        meter.begin(total_bytes=total_bytes, kept_bytes=total_bytes - copied_bytes)
    content = manifest.to_json().encode()
    if there == content:
        _copy_all(missing, destination, connections, meter)
    else:
        if complete is not None and complete not in versions:
            destination.delete(MANIFEST_FILE)
        destination.write(UNFINISHED, content)
        _copy_all(missing, destination, connections, meter)
        if there is not None and complete in manifest.earlier:
            destination.write(version_file(1 + manifest.earlier.index(complete)), there)
        destination.write(MANIFEST_FILE, content)
    destination.delete(UNFINISHED)
    return Transferred(
        copied_files=len(missing),
        copied_bytes=copied_bytes,
        kept_files=len(files) - len(missing),
        kept_bytes=total_bytes - copied_bytes,
    )


def checked_files(manifest: Manifest) -> tuple[FileEntry, ...]:
    """The files that a manifest names, each once; `CorpusError` when they could not lie side by side."""
    by_name: dict[str, FileEntry] = {}
    for entry in manifest.files:
        inside(entry.file)
        known = by_name.setdefault(entry.file, entry)
        if (known.bytes, known.sha256) != (entry.bytes, entry.sha256):
            raise CorpusError(
                f"the manifest names {entry.file!r} twice, with different checksums: it is damaged."
            )
        if is_manifest_file(entry.file) or entry.file.endswith(PARTIAL):
            raise CorpusError(
                f"the manifest names {entry.file!r}, a name that is kept for the copying itself: it is "
                "damaged or was tampered with."
            )
    return tuple(by_name.values())


def _claimed(manifest: bytes | None) -> str | None:
    """Whose manifest it is; None when there is none."""
    return None if manifest is None else claimed_fingerprint(manifest)


def claimed_fingerprint(manifest: bytes) -> str:
    """The fingerprint that a manifest's JSON says it has, unchecked; `unreadable` when it says none."""
    try:
        return str(json.loads(manifest)["fingerprint"])
    except (ValueError, KeyError, TypeError):
        return "unreadable"


def _states(
    files: Sequence[FileEntry], destination: Destination, connections: int
) -> list[tuple[FileEntry, State]]:
    with ThreadPoolExecutor(connections) as pool:
        try:
            return list(zip(files, pool.map(destination.state, files), strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _copy_all(
    files: Sequence[FileEntry], destination: Destination, connections: int, meter: Meter | None
) -> None:
    """Copy files side by side. After an error, or Ctrl-C, the others stop at their next part."""
    stop = threading.Event()

    def copy(entry: FileEntry) -> None:
        done = 0

        def on_position(position: int) -> None:
            nonlocal done
            if stop.is_set():
                raise _StoppedError
            if meter is not None:
                meter.advance(position - done)
            done = position

        on_position(0)
        destination.copy(entry, on_position)
        on_position(entry.bytes)

    with ThreadPoolExecutor(connections) as pool:
        copies = [pool.submit(copy, entry) for entry in files]
        try:
            for each in as_completed(copies):
                each.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _StoppedError(Exception):
    """Another file failed, so this one is not finished either."""
