"""Vectors that were made elsewhere: a folder of Arrow, Feather or Parquet files with ids and vectors.

    id        string or integer; called document, id, document_id or doc_id
    vector    list or fixed-size list of float16, float32 or float64; called vector, embedding or embeddings

Files are taken in the order of their names. Parquet is read by row groups, uncompressed Arrow is mapped; of a
compressed Arrow file, and of a file in an object store, as much is in memory as one file takes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.input_files import LocalFile
from clustering.errors import InputError
from clustering.work.work_store import LocalWork, WorkStore, open_work
from pipeline.stores.address import is_address
from pipeline.stores.object_store import ObjectStore

ID_COLUMNS = ("document", "id", "document_id", "doc_id")
VECTOR_COLUMNS = ("vector", "embedding", "embeddings")
SUFFIXES = (".arrow", ".feather", ".parquet")
BATCH_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """One file, with the names of its columns."""

    store: WorkStore
    name: str
    id_column: str
    vector_column: str

    def ids(self) -> Iterator[list[str]]:
        """All ids as text, in pieces."""
        for batch in _batches(self.store, self.name, [self.id_column]):
            yield _as_text(batch[0], self.name, self.id_column)

    def vectors(self) -> Iterator[NDArray[np.floating[Any]]]:
        """All vectors (n, dim), in the same pieces as the ids.

        Raises:
            InputError: The column holds something else, nulls, or vectors of different lengths.
        """
        for batch in _batches(self.store, self.name, [self.vector_column]):
            yield _as_matrix(batch[0], self.name, self.vector_column)


def find_foreign(place: Path | str) -> list[ForeignFile]:
    """The files in a folder or under an address.

    Raises:
        InputError: There are none, or one lacks a column.
    """
    store = open_work(place)
    names = [name for name in store.names("") if name.endswith(SUFFIXES)]
    if not names:
        raise InputError(
            f"--embeddings {str(place)!r} has no file with vectors; files end in {', '.join(SUFFIXES)}. Give "
            "the folder that holds them, for example the embed/ folder in the work of another build."
        )
    return [_described(store, name) for name in names]


def _described(store: WorkStore, name: str) -> ForeignFile:
    columns = _schema(store, name).names
    found = []
    for what, known in (("document ids", ID_COLUMNS), ("vectors", VECTOR_COLUMNS)):
        here = [column for column in known if column in columns]
        if not here:
            raise InputError(
                f"{name}: no column with {what}; it is called {', '.join(known[:-1])} or {known[-1]}, and "
                f"the file has {', '.join(columns) or 'no column'}. Rename the column."
            )
        found.append(here[0])
    return ForeignFile(store, name, *found)


def _source(store: WorkStore, name: str) -> Any:
    return store.folder / name if isinstance(store, LocalWork) else io.BytesIO(store.content(name))


def _schema(store: WorkStore, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if name.endswith(".parquet"):
            return pq.read_schema(_source(store, name))
        return store.table(name).schema
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{name}: cannot be read as {'Parquet' if name.endswith('.parquet') else 'Arrow'} ({error}). "
            "Write it again, or take it out of the folder."
        ) from error


def _batches(store: WorkStore, name: str, columns: list[str]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if name.endswith(".parquet"):
        yield from pq.ParquetFile(_source(store, name)).iter_batches(BATCH_ROWS, columns=columns)
    else:
        yield from store.table(name).select(columns).to_batches(BATCH_ROWS)


def _as_text(column: Any, name: str, called: str) -> list[str]:
    import pyarrow as pa

    kind = column.type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (texts or pa.types.is_integer(kind)) or column.null_count:
        raise InputError(
            f"{name}: the column {called!r} holds {kind} with {column.null_count:,} nulls; ids are strings "
            "or integers, without nulls. Write them so."
        )
    ids: list[str] = column.cast(pa.string()).to_pylist()
    return ids


def _as_matrix(column: Any, name: str, called: str) -> NDArray[np.floating[Any]]:
    import pyarrow as pa

    kind = column.type
    lists = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    if not lists or not pa.types.is_floating(kind.value_type) or column.null_count:
        raise InputError(
            f"{name}: the column {called!r} holds {kind} with {column.null_count:,} nulls; vectors are lists "
            "of float16, float32 or float64, without nulls. Write them so."
        )
    flat = column.flatten()
    dimensions = len(flat) // max(1, len(column))
    lengths = column.value_lengths().to_numpy()
    if flat.null_count or (lengths != dimensions).any():
        raise InputError(
            f"{name}: vectors of {lengths.min()} to {lengths.max()} numbers, {flat.null_count:,} null; all "
            "vectors must come from one model and have one length. Write them again."
        )
    matrix: NDArray[np.floating[Any]] = flat.to_numpy().reshape(len(column), dimensions)
    return matrix


def foreign_identities(files: Sequence[ForeignFile]) -> list[Sequence[Any]]:
    """What changes when one of the files of vectors does, which lie in one place."""
    address = files[0].store.address
    if is_address(address):
        marks = ObjectStore(address).marks()
        return [[file.name, marks.get(file.name, "")] for file in files]
    return [LocalFile(path=Path(address) / file.name, name=file.name).identity for file in files]
