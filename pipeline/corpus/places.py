"""A folder on this machine or a prefix of an object store, through the same few verbs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from pipeline.errors import CorpusError
from pipeline.stores.address import inside, is_address
from pipeline.stores.object_store import ObjectFacts, ObjectStore
from pipeline.whole_files import write_whole


class Place(Protocol):
    """Files by name: relative, with forward slashes. `ObjectStore` is one, too."""

    url: str
    """The folder or prefix itself; safe to print."""

    def address(self, name: str) -> str:
        """Where a file is, for messages."""
        ...

    def listed(self) -> dict[str, ObjectFacts]:
        """Length and mark of every file, by name."""
        ...

    def read(self, name: str) -> bytes:
        """A whole small file."""
        ...

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` up to but not including `end`: exactly that many, or an error."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""
        ...


class LocalPlace:
    """A folder on a local or mounted disk."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CorpusError(
                f"{str(folder)!r} is no folder. Give the folder, or the s3://, gs:// or az:// prefix, that "
                "holds the shards."
            )
        self.folder = folder
        self.url = str(folder)

    def address(self, name: str) -> str:
        """See `Place`."""
        return str(self._path(name))

    def listed(self) -> dict[str, ObjectFacts]:
        """See `Place`; the mark is when the file was written."""
        paths = paths_below(self.folder, self._unlisted)
        found = {path: path.stat() for path in paths if path.is_file()}
        return {
            path.relative_to(self.folder).as_posix(): ObjectFacts(
                bytes=stat.st_size, sha256=None, mark=str(stat.st_mtime_ns)
            )
            for path, stat in found.items()
        }

    def _unlisted(self, folder: str, why: str) -> None:
        raise CorpusError(
            f"the folder {folder} cannot be listed ({why}), so what is in it would be left out. Give "
            "yourself the right to read it, or move it out of here."
        )

    def read(self, name: str) -> bytes:
        """See `Place`; `CorpusError` when the file is missing."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            raise CorpusError(f"{self.address(name)} is missing.") from None

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """See `Place`; `CorpusError` when the file is shorter."""
        with self._path(name).open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        if len(content) != end - start:
            raise CorpusError(
                f"{self.address(name)} ends at byte {start + len(content):,}, before byte {end:,}: it "
                "changes while it is read, or its disk fails."
            )
        return content

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)

    def delete(self, name: str) -> None:
        """See `Place`."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / inside(name)


def open_place(where: str) -> Place:
    """The folder or prefix `where`; `CorpusError` when it cannot be one."""
    return ObjectStore(where) if is_address(where) else LocalPlace(Path(where))


def paths_below(
    folder: Path,
    unlisted: Callable[[str, str], None],
    *,
    enters: Callable[[Path], bool] = lambda path: True,
) -> Iterator[Path]:
    """What is no folder, below one: also in folders that are links, but in none that leads back.

    `unlisted` is told of every folder that cannot be listed, and why: without it whatever is in there would
    be missing without a word. Only folders that `enters` holds of are looked into.
    """

    def tell(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            unlisted(os.fspath(error.filename), error.strerror or str(error))

    for place, folders, names in os.walk(folder, followlinks=True, onerror=tell):
        here = Path(place)
        folders[:] = [
            name for name in folders if enters(here / name) and not _leads_back(here / name)
        ]
        yield from (here / name for name in names)


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it is in."""
    return folder.is_symlink() and folder.resolve() in {above.resolve() for above in folder.parents}
