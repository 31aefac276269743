"""Read documents out of files: JSON Lines, Parquet, plain text, WebDataset tars.

One document at a time, never a whole file in memory. Whatever is broken is reported with file, line, rule
and remedy; `BadInput` decides whether that ends the build or is counted and skipped.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from clustering.errors import InputError
from clustering.inputs import PLAIN_SUFFIXES, InputFile
from clustering.records import BadInput, Document, TextColumn


def read_documents(
    file: InputFile, *, text_column: str | None, bad: BadInput
) -> Iterator[Document]:
    """Yield the documents of one file in order.

    Args:
        file: The file.
        text_column: Column with the text; None detects it from the file's first record.
        bad: Decides about lines and files that cannot be read.

    Raises:
        InputError: The text column cannot be found (always), or bad input (when `bad` says fail).
    """
    column = TextColumn(file.name, text_column)
    reader: Callable[[InputFile, TextColumn, BadInput], Iterator[Document]]
    if file.suffix == ".parquet":
        reader = _read_parquet
    elif file.suffix == ".tar":
        reader = _read_tar
    elif file.suffix in PLAIN_SUFFIXES:
        reader = _read_plain
    else:
        reader = _read_lines
    try:
        yield from reader(file, column, bad)
    except (OSError, EOFError, zlib.error) as error:
        bad.report(
            file.name,
            f"cannot be read to its end ({type(error).__name__}: {error}).",
            "The file is damaged or cut short: fetch it again, or remove it.",
        )


def _read_lines(file: InputFile, column: TextColumn, bad: BadInput) -> Iterator[Document]:
    with _open(file.path) as stream:
        for row, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where = f"{file.name}, line {row}"
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                bad.report(
                    where,
                    f"is no JSON ({error}).",
                    "Every line must be one JSON object: correct the line.",
                )
                continue
            if not isinstance(record, dict):
                bad.report(
                    where,
                    f"is a JSON {type(record).__name__}.",
                    "Every line must be one JSON object: write one record per line.",
                )
                continue
            text = column.text_of(record, where, bad)
            if text is not None:
                yield Document(text=text, row=row)


def _read_plain(file: InputFile, column: TextColumn, bad: BadInput) -> Iterator[Document]:
    with _open(file.path) as stream:
        content = stream.read()
    try:
        yield Document(text=content.decode("utf-8"), row=1)
    except UnicodeDecodeError as error:
        bad.report(
            file.name, f"is no UTF-8 text ({error}).", "Text files must be UTF-8: convert the file."
        )


def _read_parquet(file: InputFile, column: TextColumn, bad: BadInput) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file.path)
    except pa.ArrowInvalid as error:
        bad.report(
            file.name,
            f"is no Parquet file ({error}).",
            "The file is damaged: fetch or write it again.",
        )
        return
    with parquet:
        schema = parquet.schema_arrow
        textual = [f.name for f in schema if _holds_strings(f.type)]
        name = column.choose(schema.names, textual)
        if name not in textual:
            raise InputError(
                f"{file.name}: column {name!r} is of type {schema.field(name).type}; the text column must "
                f"hold strings. Columns that do: {', '.join(textual) or '(none)'}."
            )
        row = 0
        try:
            for batch in parquet.iter_batches(batch_size=1_024, columns=[name]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield Document(text=text or "", row=row)
        except pa.ArrowInvalid as error:
            bad.report(
                f"{file.name}, after record {row}",
                f"cannot be read ({error}).",
                "The file is damaged: fetch or write it again.",
            )


def _holds_strings(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_strings(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _read_tar(file: InputFile, column: TextColumn, bad: BadInput) -> Iterator[Document]:
    """Samples as webdataset groups them: text in a field named like a text column, or inside `.json`."""
    import tarfile

    from webdataset.tariterators import group_by_keys, tar_file_expander

    with _open(file.path) as stream:
        samples = group_by_keys(tar_file_expander([{"url": file.name, "stream": stream}]))
        row = 0
        try:
            for row, sample in enumerate(samples, start=1):
                where = f"{file.name}, sample {sample['__key__']!r}"
                record = _tar_record(sample, where, bad)
                text = None if record is None else column.text_of(record, where, bad)
                if text is not None:
                    yield Document(text=text, row=row)
        except (tarfile.TarError, ValueError) as error:
            bad.report(
                f"{file.name}, after sample {row}",
                f"is no readable tar ({error.args[0] if error.args else error}).",
                "The file is damaged: fetch or write it again.",
            )


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
                record[name] = value.decode("utf-8")
        except json.JSONDecodeError as error:
            bad.report(where, f"its .json is no JSON ({error}).", "Write the sample again.")
            return None
        except UnicodeDecodeError:
            record[name] = value  # an image or the like: not text, and nobody has asked for it yet
    return record


def _open(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if suffix == ".zst":
        import pyarrow as pa

        # pyarrow's reader raises on a frame that is cut short; zstandard's ends as if nothing were missing.
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 20)
    return path.open("rb")
