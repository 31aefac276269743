"""Where the stages of a build leave their work: a folder, or a prefix of an object store.

A name is published whole or not at all (a rename, or one put), so what is there is finished: a build that was
killed finds its finished units by listing. Tables and arrays in a folder are memory-mapped, so reading a
few rows of a large part costs a few pages; from an object store, a few ranges (`rows`).
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.work.object_file import ObjectFile
from pipeline.stores.address import inside, is_address
from pipeline.stores.object_store import ObjectStore

SCRATCH = "scratch"
"""Folder for what is not published yet; whoever holds the lock of a build empties it at the start."""
_BATCH_ROWS = b"batch_rows"
"""Metadata of a table that was published in batches."""
COPY_BYTES = 32 * 2**20
"""Read at a time while a large file is copied."""


class WorkStore(Protocol):
    """Named tables (Arrow IPC), arrays (.npy) and small files. Picklable: carries its address only.

    Names are relative, with `/`.
    """

    @property
    def address(self) -> str:
        """Where it is: an absolute path or an address."""

    @property
    def maps(self) -> bool:
        """Whether a table is mapped, so that a few rows cost a few pages, and not fetched whole."""

    def names(self, prefix: str) -> list[str]:
        """Names that were published under `prefix` (which ends in `/`, or is empty), sorted."""

    def exists(self, name: str) -> bool:
        """Whether `name` was published."""

    def table(self, name: str) -> Any:
        """A `pyarrow.Table`."""

    def rows(self, name: str, begin: int, end: int) -> Any:
        """Rows `begin` up to but not including `end` of a table that was published in batches."""

    def publish_table(self, name: str, table: Any, *, batch_rows: int | None = None) -> None:
        """Publish a `pyarrow.Table` as one uncompressed Arrow file: one batch, or batches of `batch_rows`."""

    def array(self, name: str) -> NDArray[Any]:
        """An array, read-only."""

    def publish_array(self, name: str, array: NDArray[Any]) -> None:
        """Publish an array."""

    def content(self, name: str) -> bytes:
        """A small file."""

    def publish(self, name: str, content: bytes) -> None:
        """Publish a small file."""

    def publish_file(self, name: str, path: Path) -> None:
        """Publish a large file that was written to `scratch`; it may be gone from there afterwards."""

    def copy_to(self, name: str, path: Path) -> None:
        """Put a large file to a local path; a hard link where that is possible."""

    def remove(self, prefix: str) -> None:
        """Take back everything under `prefix`, which ends in `/`."""

    def scratch(self) -> AbstractContextManager[Path]:
        """A new local folder, removed when the block ends."""


def open_work(place: Path | str) -> WorkStore:
    """The work store in a folder or under an address."""
    if isinstance(place, str) and is_address(place):
        return RemoteWork(place)
    return LocalWork(Path(place).absolute())


@dataclass(frozen=True, slots=True)
class LocalWork:
    """A work store in a folder."""

    folder: Path

    @property
    def address(self) -> str:
        """See `WorkStore`."""
        return str(self.folder)

    @property
    def maps(self) -> bool:
        """See `WorkStore`."""
        return True

    def names(self, prefix: str) -> list[str]:
        """See `WorkStore`."""
        root = self.folder / prefix
        return sorted(
            prefix + path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
        )

    def exists(self, name: str) -> bool:
        """See `WorkStore`."""
        return self._path(name).is_file()

    def table(self, name: str) -> Any:
        """See `WorkStore`."""
        import pyarrow as pa

        with pa.memory_map(str(self._path(name))) as file:
            return pa.ipc.open_file(file).read_all()

    def rows(self, name: str, begin: int, end: int) -> Any:
        """See `WorkStore`."""
        return self.table(name).slice(begin, end - begin)

    def publish_table(self, name: str, table: Any, *, batch_rows: int | None = None) -> None:
        """See `WorkStore`."""
        self._publish(name, lambda path: _write_table(str(path), table, batch_rows))

    def array(self, name: str) -> NDArray[Any]:
        """See `WorkStore`."""
        mapped: NDArray[Any] = np.load(self._path(name), mmap_mode="r")
        return mapped

    def publish_array(self, name: str, array: NDArray[Any]) -> None:
        """See `WorkStore`."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, array)

        self._publish(name, write)

    def content(self, name: str) -> bytes:
        """See `WorkStore`."""
        return self._path(name).read_bytes()

    def publish(self, name: str, content: bytes) -> None:
        """See `WorkStore`."""
        self._publish(name, lambda path: path.write_bytes(content))

    def publish_file(self, name: str, path: Path) -> None:
        """See `WorkStore`."""
        self._publish(name, lambda partial: path.replace(partial))

    def copy_to(self, name: str, path: Path) -> None:
        """See `WorkStore`."""
        path.unlink(missing_ok=True)
        try:
            path.hardlink_to(self._path(name))
        except OSError:  # another file system, or one without links
            shutil.copyfile(self._path(name), path)

    def remove(self, prefix: str) -> None:
        """See `WorkStore`."""
        shutil.rmtree(self._path(prefix.rstrip("/")), ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `WorkStore`."""
        root = self.folder / SCRATCH
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            yield Path(folder)

    def _path(self, name: str) -> Path:
        return self.folder / inside(name)

    def _publish(self, name: str, write: Callable[[Path], object]) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may do one unit (a node thought dead is not): each writes a file of its own.
        with self.scratch() as folder:
            partial = folder / path.name
            write(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)


class RemoteWork:
    """A work store under an address, for clusters that share no file system."""

    def __init__(self, address: str) -> None:
        self._store = ObjectStore(address)

    @property
    def address(self) -> str:
        """See `WorkStore`."""
        return self._store.url

    @property
    def maps(self) -> bool:
        """See `WorkStore`."""
        return False

    def names(self, prefix: str) -> list[str]:
        """See `WorkStore`."""
        below = self._store if prefix == "" else ObjectStore(f"{self._store.url}/{prefix}")
        return sorted(prefix + name for name, _ in below.list())

    def exists(self, name: str) -> bool:
        """See `WorkStore`."""
        return self._store.find(name) is not None

    def table(self, name: str) -> Any:
        """See `WorkStore`."""
        import pyarrow as pa

        return pa.ipc.open_file(pa.BufferReader(self._store.read(name))).read_all()

    def rows(self, name: str, begin: int, end: int) -> Any:
        """See `WorkStore`."""
        import pyarrow as pa

        file = ObjectFile(self._store, name, self._store.size(name))
        reader = pa.ipc.open_file(pa.PythonFile(file, mode="r"))
        batch_rows = int(reader.schema.metadata[_BATCH_ROWS])
        first, last = begin // batch_rows, -(-end // batch_rows)
        batches = [reader.get_batch(number) for number in range(first, last)]
        table = pa.Table.from_batches(batches, reader.schema)
        return table.slice(begin - first * batch_rows, end - begin)

    def publish_table(self, name: str, table: Any, *, batch_rows: int | None = None) -> None:
        """See `WorkStore`."""
        buffer = io.BytesIO()
        _write_table(buffer, table, batch_rows)
        self._store.write(name, buffer.getvalue())

    def array(self, name: str) -> NDArray[Any]:
        """See `WorkStore`."""
        loaded: NDArray[Any] = np.load(io.BytesIO(self._store.read(name)))
        return loaded

    def publish_array(self, name: str, array: NDArray[Any]) -> None:
        """See `WorkStore`."""
        buffer = io.BytesIO()
        np.save(buffer, array)
        self._store.write(name, buffer.getvalue())

    def content(self, name: str) -> bytes:
        """See `WorkStore`."""
        return self._store.read(name)

    def publish(self, name: str, content: bytes) -> None:
        """See `WorkStore`."""
        self._store.write(name, content)

    def publish_file(self, name: str, path: Path) -> None:
        """See `WorkStore`."""
        self._store.write(name, path)

    def copy_to(self, name: str, path: Path) -> None:
        """See `WorkStore`."""
        size = self._store.size(name)
        with path.open("wb") as file:
            for begin in range(0, size, COPY_BYTES):
                end = min(begin + COPY_BYTES, size)
                file.write(self._store.read_range(name, begin, end))

    def remove(self, prefix: str) -> None:
        """See `WorkStore`."""
        for name in self.names(prefix):
            self._store.delete(name)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `WorkStore`."""
        with tempfile.TemporaryDirectory(prefix="braidstream-") as folder:
            yield Path(folder)


def _write_table(sink: Any, table: Any, batch_rows: int | None) -> None:
    import pyarrow as pa

    table = table.combine_chunks()
    if batch_rows is not None:
        table = table.replace_schema_metadata({_BATCH_ROWS: str(batch_rows)})
    with pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, max_chunksize=batch_rows)
