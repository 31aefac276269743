"""Read documents out of files: JSON Lines, Parquet, plain text, WebDataset tars.

One document at a time, never a whole file in memory, wherever it lies, and no document beyond
`MAX_DOCUMENT_BYTES`: a file that unpacks to one endless line costs time, not memory. Whatever is broken is
reported with file, line, rule and remedy; `BadInput` decides whether that ends the build or is counted and
skipped. A store that does not answer always ends it. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, Self, cast

from clustering.documents.input_files import READ_BYTES, InputFile, kind_of
from clustering.documents.inputs import PLAIN_SUFFIXES
from clustering.documents.records import BadInput, Columns, Document
from clustering.errors import InputError

MAX_DOCUMENT_BYTES = 64 * 2**20
"""A line, a text file, a value or a member of a tar that is longer is bad input; so are members of one sample
that are longer together."""
DRAIN_BYTES = 2**20
PARQUET_ROWS = 64
"""Decoded at a time, beside the page that they are in, whose size is the writer's choice."""


def read_documents(
    file: InputFile, *, text_column: str | None, id_column: str | None = None, bad: BadInput
) -> Iterator[Document]:
    """Yield the documents of one file in order.

    Args:
        file: The file.
        text_column: Column with the text; None detects it from the file's first record.
        id_column: Column with what documents are called; None leaves them without.
        bad: Decides about documents and files that cannot be read.

    Raises:
        InputError: Bad input, when `bad` says fail.
    """
    columns = Columns(file.name, text_column, id_column)
    reader: Callable[[InputFile, Columns, BadInput], Iterator[Document]]
    kind = kind_of(file.name)
    if kind == ".parquet":
        reader = _read_parquet
    elif kind == ".tar":
        reader = _read_tar
    elif kind in PLAIN_SUFFIXES:
        reader = _read_plain
    else:
        reader = _read_lines
    try:
        if not file.is_regular():
            remedy = "Pipes and devices are not read: remove it."
            bad.report(file.name, "is no regular file.", remedy)
        elif file.size == 0 and reader is not _read_plain:
            remedy = "A file that should hold documents does not: fetch it again, or remove it."
            bad.report(file.name, "is empty.", remedy)
        else:
            yield from reader(file, columns, bad)
    except InputError as error:
        if bad.action == "fail":
            raise
        bad.count(str(error))  # the rest of the file, because of its columns
    except (OSError, EOFError, zlib.error) as error:
        bad.report(
            file.name,
            f"cannot be read to its end ({type(error).__name__}: {error}).",
            "Check that it is complete and readable: fetch it again, or remove it.",
        )


def _read_lines(file: InputFile, columns: Columns, bad: BadInput) -> Iterator[Document]:
    with _unpacked(file) as stream:
        for row, line in enumerate(_lines(stream), start=1):
            where = f"{file.name}, line {row}"
            if line is None:
                bad.report(where, *_TOO_LONG)
                continue
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (
                ValueError,
                RecursionError,
            ) as error:  # no JSON, no Unicode, a number without end
                bad.report(
                    where,
                    f"is no JSON ({str(error)[:200]}).",
                    "Every line must be one JSON object in UTF-8: correct the line.",
                )
                continue
            if not isinstance(record, dict):
                bad.report(
                    where,
                    f"is a JSON {_JSON_NAMES[type(record)]}.",
                    "Every line must be one JSON object: write one record per line.",
                )
                continue
            document = columns.document_of(record, row, where, bad)
            if document is not None:
                yield document


_JSON_NAMES = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}

_TOO_LONG = (
    f"is longer than {MAX_DOCUMENT_BYTES:,} bytes.",
    "A document may not be: cut it into several.",
)


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long, which is passed over without being held."""
    while line := stream.readline(MAX_DOCUMENT_BYTES):
        if len(line) < MAX_DOCUMENT_BYTES or line.endswith(b"\n"):
            yield line
            continue
        del line
        while (rest := stream.readline(DRAIN_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


def _read_plain(file: InputFile, columns: Columns, bad: BadInput) -> Iterator[Document]:
    with _unpacked(file) as stream:
        content = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        bad.report(file.name, *_TOO_LONG)
        return
    identity = None if columns.identity is None else file.name
    try:
        yield Document(text=content.decode("utf-8-sig"), row=1, id=identity)
    except UnicodeDecodeError as error:
        bad.report(
            file.name, f"is no UTF-8 text ({error}).", "Text files must be UTF-8: convert the file."
        )


def _read_parquet(file: InputFile, columns: Columns, bad: BadInput) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with file.open() as source, pq.ParquetFile(source, buffer_size=READ_BYTES) as parquet:
            schema = parquet.schema_arrow
            textual = [f.name for f in schema if _holds_strings(f.type)]
            nulls = [f.name for f in schema if pa.types.is_null(f.type)]
            name = columns.choose(schema.names, textual, nulls)
            wanted = [name] if columns.identity is None else [name, columns.identity]
            for asked in wanted:
                if schema.names.count(asked) > 1:
                    raise InputError(
                        f"{file.name}: has more than one column {asked!r}; which one is meant cannot be "
                        "told. Write the file with names that tell them apart."
                    )
            if name not in (*textual, *nulls):
                raise InputError(
                    f"{file.name}: column {name!r} is of type {schema.field(name).type}; the text "
                    f"column must hold strings. Columns that do: {', '.join(textual) or '(none)'}."
                )
            for batch in parquet.iter_batches(batch_size=PARQUET_ROWS, columns=wanted):
                for place, length in enumerate(_byte_lengths(batch.column(name))):
                    row += 1
                    if (length or 0) > MAX_DOCUMENT_BYTES:
                        bad.report(f"{file.name}, record {row}", *_TOO_LONG)
                        continue
                    document = _parquet_row(batch, place, row, columns, file, bad)
                    if document is not None:
                        yield document
    except pa.ArrowException as error:
        bad.report(
            f"{file.name}, after record {row}",
            f"is no readable Parquet file ({str(error)[:200]}).",
            "The file is damaged: fetch or write it again.",
        )


def _parquet_row(
    batch: Any, place: int, row: int, columns: Columns, file: InputFile, bad: BadInput
) -> Document | None:
    where = f"{file.name}, record {row}"
    try:
        record = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        bad.report(
            where, f"is no UTF-8 text ({error}).", "Text must be UTF-8: write the file again."
        )
        return None
    return columns.document_of(record, row, where, bad)


def _byte_lengths(column: Any) -> list[int | None]:
    """Of strings that are not looked at otherwise; None for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
    else:
        lengths = pc.binary_length(column.cast(pa.large_binary()))
    found: list[int | None] = lengths.to_pylist()
    return found


def _holds_strings(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_strings(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _read_tar(file: InputFile, columns: Columns, bad: BadInput) -> Iterator[Document]:
    """Samples as webdataset groups them: text in a field named like a text column, or inside `.json`."""
    from webdataset.tariterators import group_by_keys

    row = 0
    try:
        for row, sample in enumerate(group_by_keys(_tar_members(file, bad)), start=1):
            where = f"{file.name}, sample {sample['__key__']!r}"
            record = _tar_record(sample, where, bad)
            if record is not None:
                if columns.identity == "__key__":
                    record["__key__"] = sample["__key__"]
                document = columns.document_of(record, row, where, bad)
                if document is not None:
                    yield document
    except (tarfile.TarError, ValueError) as error:
        bad.report(
            f"{file.name}, after sample {row}",
            f"is no readable tar ({error.args[0] if error.args else error}).",
            "The file is damaged: fetch or write it again.",
        )


class _StrictHeader(tarfile.TarInfo):
    """A header that is damaged is an error; `tarfile` takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None


def _tar_members(file: InputFile, bad: BadInput) -> Iterator[dict[str, Any]]:
    """The regular members of a tar, in order, as webdataset's grouping takes them, which holds a sample."""
    from webdataset.tariterators import base_plus_ext

    sample, held = None, 0
    with (
        _unpacked(file) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader) as tar,
    ):
        for member in tar:
            where = f"{file.name}, member {member.name[:200]!r}"
            name = PurePosixPath(member.name)
            if member.isdir():
                continue
            if name.is_absolute() or ".." in name.parts:
                bad.report(where, "has a name that leads outside.", "Write the tar again.")
                continue
            if not member.isfile():
                bad.report(where, "is a link or a device.", "Only regular files are read.")
                continue
            key = base_plus_ext(member.name)[0] or member.name
            sample, held = key, member.size + (held if key == sample else 0)
            if held > MAX_DOCUMENT_BYTES:
                held -= member.size
                bad.report(where, *_TOO_LONG)
            else:
                content = tar.extractfile(member)
                assert content is not None, "regular members have content"
                yield {"fname": member.name, "data": content.read(), "__url__": file.name}


def _tar_record(sample: dict[str, Any], where: str, bad: BadInput) -> dict[str, Any] | None:
    """Columns of a sample: its fields that are text, then those of its `.json` field."""
    record: dict[str, Any] = {}
    for name, value in sample.items():
        if name.startswith("__"):
            continue
        try:
            if name == "json":
                parsed = json.loads(value)
                record.update(parsed if isinstance(parsed, dict) else {})
            else:
                record[name] = value.decode("utf-8-sig")
        except UnicodeDecodeError:
            record[name] = value  # an image or the like: not text, and nobody has asked for it yet
        except (ValueError, RecursionError) as error:
            bad.report(
                where, f"its .json is no JSON ({str(error)[:200]}).", "Write the sample again."
            )
            return None
    return record


@contextmanager
def _unpacked(file: InputFile) -> Iterator[IO[bytes]]:
    """The content of a file that may be compressed."""
    compression = PurePosixPath(file.name).suffix.lower()
    with ExitStack() as opened:
        stream = opened.enter_context(file.open())
        if compression == ".gz":
            unzipped = opened.enter_context(gzip.open(stream, "rb"))
            yield cast("IO[bytes]", unzipped)
        elif compression == ".zst":
            import pyarrow as pa

            # pyarrow's reader raises on a frame that is cut short; zstandard's ends as if all were there.
            unpacked = pa.input_stream(stream, compression="zstd")
            yield opened.enter_context(io.BufferedReader(unpacked, 1 << 20))
        else:
            yield stream
