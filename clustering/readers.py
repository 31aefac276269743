"""Read documents out of files: JSON Lines, Parquet, plain text, WebDataset tars.

    find_inputs(corpus) -> [InputFile]        a file, a folder or a glob, in sorted order
    read_documents(file, ...) -> Document     one at a time, never a whole file in memory

Whatever is broken is reported with file, line, rule and remedy; `BadInput` decides whether that ends
the build or is counted and skipped.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from clustering.errors import InputError

TEXT_COLUMNS = (
    "text",
    "content",
    "raw_content",
    "document",
    "body",
    "article",
    "page_content",
    "txt",
)
"""Names tried, in this order, when no text column is given."""

LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
PLAIN_SUFFIXES = (".txt", ".md")
SUFFIXES = (*LINE_SUFFIXES, *PLAIN_SUFFIXES, ".parquet", ".tar")
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file of the input."""

    path: Path
    name: str
    """Name relative to what was asked for: what provenance records, free of machine paths."""

    @property
    def suffix(self) -> str:
        """Its kind: the last suffix that is no compression, lower case."""
        suffixes = [s.lower() for s in self.path.suffixes]
        if suffixes and suffixes[-1] in COMPRESSIONS:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def identity(self) -> list[Any]:
        """What changes when the file does: name, bytes, time of change in nanoseconds."""
        stat = self.path.stat()
        return [self.name, stat.st_size, stat.st_mtime_ns]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document as it was found."""

    text: str
    row: int
    """Line (JSON Lines) or record (other kinds) of its file, counted from 1."""


@dataclass(kw_only=True, slots=True)
class BadInput:
    """What happens to input that cannot be read, and how often it happened."""

    action: Literal["fail", "skip"] = "fail"
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    """The first few messages, for the closing note."""

    def report(self, where: str, problem: str, remedy: str) -> None:
        """Raise `InputError`, or count the case when bad input is skipped."""
        message = f"{where}: {problem}"
        if self.action == "fail":
            raise InputError(
                f"{message} {remedy} Or pass --on-bad-input skip to leave such input out."
            )
        self.skipped += 1
        if len(self.examples) < 5:
            self.examples.append(message)


def find_inputs(corpus: str) -> list[InputFile]:
    """List the input files of a file, folder or glob, sorted by name.

    Raises:
        InputError: Nothing is there, or nothing of a known kind.
    """
    path = Path(corpus).expanduser()
    if path.is_file():
        files = [InputFile(path=path, name=path.name)]
    elif path.is_dir():
        files = [
            InputFile(path=found, name=found.relative_to(path).as_posix())
            for found in path.rglob("*")
            if found.is_file() and not any(p.startswith(".") for p in found.relative_to(path).parts)
        ]
    else:
        base = _fixed_folder(path)
        pattern = path.relative_to(base).as_posix()
        found = [p for p in base.glob(pattern) if p.is_file()] if pattern != "." else []
        files = [InputFile(path=p, name=p.relative_to(base).as_posix()) for p in found]
    known = sorted((f for f in files if f.suffix in SUFFIXES), key=lambda f: f.name)
    if known:
        return known
    found_text = f"only {files[0].name!r} and the like" if files else "nothing"
    raise InputError(
        f"{corpus!r}: found {found_text}; the input must be a file, folder or glob with files of the "
        f"kinds {', '.join(SUFFIXES)} (JSON Lines and text also as .gz, .zst). Check the path, or quote "
        "the glob so that the shell leaves it alone."
    )


def _fixed_folder(pattern: Path) -> Path:
    """The part of a glob before its first wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


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
    column = _TextColumn(file.name, text_column)
    reader: Callable[[InputFile, _TextColumn, BadInput], Iterator[Document]]
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


class _TextColumn:
    """Finds the text in a record; settles on a column at the first one."""

    def __init__(self, file_name: str, name: str | None) -> None:
        self.file_name = file_name
        self.name = name

    def choose(self, columns: Sequence[str], textual: Sequence[str]) -> str:
        """Settle on a column, given all columns and those that hold strings."""
        if self.name is None:
            candidates = [c for c in TEXT_COLUMNS if c in textual]
            if not candidates and len(textual) == 1:
                candidates = list(textual)
            if not candidates:
                raise InputError(
                    f"{self.file_name}: cannot tell which column holds the text. Its columns are "
                    f"{', '.join(columns) or '(none)'}; tried {', '.join(TEXT_COLUMNS)}. "
                    "Name it with --text-column."
                )
            self.name = candidates[0]
        elif self.name not in columns:
            raise InputError(
                f"{self.file_name}: has no column {self.name!r}, which --text-column asks for. "
                f"Its columns are {', '.join(columns) or '(none)'}."
            )
        return self.name

    def text_of(self, record: dict[str, Any], where: str, bad: BadInput) -> str | None:
        """The text of a record; None after a bad one. A null text is an empty document."""
        if self.name is None:
            self.choose(list(record), [k for k, v in record.items() if isinstance(v, str)])
        assert self.name is not None
        if self.name not in record:
            columns = ", ".join(map(str, record)) or "(none)"
            bad.report(
                where,
                f"has no column {self.name!r}; its columns are {columns}.",
                "Every record needs the text column: correct the record, or name another --text-column.",
            )
            return None
        value = record[self.name]
        if value is None:
            return ""
        if not isinstance(value, str):
            bad.report(
                where,
                f"column {self.name!r} holds {type(value).__name__} ({str(value)[:40]!r}), not text.",
                "The text column must hold strings: correct the record, or name another --text-column.",
            )
            return None
        if not _is_unicode(value):
            bad.report(
                where,
                f"column {self.name!r} holds half of a surrogate pair, which is no character.",
                "Text must be valid Unicode: correct the record.",
            )
            return None
        return value


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _read_lines(file: InputFile, column: _TextColumn, bad: BadInput) -> Iterator[Document]:
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


def _read_plain(file: InputFile, column: _TextColumn, bad: BadInput) -> Iterator[Document]:
    with _open(file.path) as stream:
        content = stream.read()
    try:
        yield Document(text=content.decode("utf-8"), row=1)
    except UnicodeDecodeError as error:
        bad.report(
            file.name, f"is no UTF-8 text ({error}).", "Text files must be UTF-8: convert the file."
        )


def _read_parquet(file: InputFile, column: _TextColumn, bad: BadInput) -> Iterator[Document]:
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


def _read_tar(file: InputFile, column: _TextColumn, bad: BadInput) -> Iterator[Document]:
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
