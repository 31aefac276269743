"""The first stage: input files to parts of documents with digests.

A unit is a group of consecutive files (a large file is a group of its own), so a million small files are a
few thousand units. A unit streams: it holds one part at a time, and its record is published after its parts.

    PREFIX/files.arrow              every input file and its unit
    PREFIX/part-00012-003.arrow     fourth part of unit 12: text, source, row, digest, and id with --id-column
    PREFIX/unit-00012.json          what unit 12 found
    PREFIX/parts.json               all parts in order; published when every unit is done
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from clustering.documents.input_files import InputFile, input_file
from clustering.documents.readers import read_documents
from clustering.documents.records import MAX_EXAMPLES, BadInput
from clustering.engines.engine import Device
from clustering.errors import InputError
from clustering.work.keyed_hash import text_digest
from clustering.work.work_store import WorkStore

FILES = "files.arrow"
PARTS = "parts.json"
UNIT_BYTES = 64 * 2**20
"""Files are grouped up to this size."""
PART_BYTES = 64 * 2**20
"""A part ends early at this much text, so that long documents do not make parts that fill the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How files are read."""

    text_column: str | None
    id_column: str | None
    on_bad_input: Literal["fail", "skip"]
    part_documents: int


@dataclass(kw_only=True, slots=True)
class ReadCounts:
    """What units found."""

    read: int = 0
    """Documents, empty ones included."""
    empty: int = 0
    skipped: int = 0
    """Lines and files that could not be read."""
    examples_of_skipped: list[str] = field(default_factory=list)

    def add(self, other: ReadCounts) -> None:
        """Add the counts of another unit."""
        self.read += other.read
        self.empty += other.empty
        self.skipped += other.skipped
        self.examples_of_skipped = (self.examples_of_skipped + other.examples_of_skipped)[
            :MAX_EXAMPLES
        ]


def publish_files(store: WorkStore, prefix: str, files: Sequence[InputFile]) -> int:
    """Write down the files and their grouping; returns the number of units.

    Raises `InputError` when the name of a file, or of a folder that it is in, is no Unicode.
    """
    import pyarrow as pa

    sizes = np.array([file.size for file in files], dtype=np.int64)
    units = _group(sizes)
    table = pa.table(
        {
            "place": pa.array([_unicode(file.place) for file in files], pa.string()),
            "name": pa.array([_unicode(file.name) for file in files], pa.string()),
            "bytes": pa.array(sizes),
            "unit": pa.array(units),
        }
    )
    store.publish_table(f"{prefix}/{FILES}", table)
    return int(units[-1]) + 1


def _unicode(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the name of the input file {name!r} is not UTF-8; names are recorded as text. Rename it."
        ) from None
    return name


def _group(sizes: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Unit of each file: a new one begins where the group would exceed `UNIT_BYTES`."""
    units = np.empty(len(sizes), dtype=np.int32)
    unit, held = 0, 0
    for number, size in enumerate(sizes):
        if number and held + size > UNIT_BYTES:
            unit, held = unit + 1, 0
        units[number] = unit
        held += int(size)
    return units


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadTask:
    """Reads the files of one unit."""

    store: WorkStore
    prefix: str
    options: ReadOptions
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        """See `UnitTask`."""
        counts, parts = ReadCounts(), []
        bad = BadInput(action=self.options.on_bad_input)
        documents = self._documents(unit, bad, counts)
        for number, part in enumerate(_cut(documents, self.options)):
            self.store.publish_table(_part(self.prefix, unit, number), part)
            parts.append(len(part))
        counts.skipped, counts.examples_of_skipped = bad.skipped, bad.examples
        record = json.dumps({"counts": asdict(counts), "parts": parts})
        self.store.publish(unit_name(self.prefix, unit), record.encode())
        return sum(parts)

    def _documents(self, unit: int, bad: BadInput, counts: ReadCounts) -> Iterator[dict[str, Any]]:
        files = self.store.table(f"{self.prefix}/{FILES}")
        first, last = np.searchsorted(files["unit"].to_numpy(), [unit, unit + 1])
        for source in range(int(first), int(last)):
            place, name, size = (files[c][source].as_py() for c in ("place", "name", "bytes"))
            options = self.options
            for document in read_documents(
                input_file(place, name, size),
                text_column=options.text_column,
                id_column=options.id_column,
                bad=bad,
            ):
                counts.read += 1
                if not document.text or document.text.isspace():
                    counts.empty += 1
                    continue
                yield {
                    "text": document.text,
                    "source": source,
                    "row": document.row,
                    "digest": text_digest(document.text),
                    "id": document.id,
                }


def _cut(documents: Iterator[dict[str, Any]], options: ReadOptions) -> Iterator[Any]:
    """Documents to tables of bounded size."""
    import pyarrow as pa

    fields = [
        ("text", pa.large_string()),
        ("source", pa.int32()),
        ("row", pa.int64()),
        ("digest", pa.binary(16)),
    ]
    if options.id_column is not None:
        fields.append(("id", pa.string()))
    schema = pa.schema(fields)
    held: list[dict[str, Any]] = []
    held_bytes = 0
    for document in documents:
        held.append(document)
        held_bytes += len(document["text"].encode())
        if len(held) >= options.part_documents or held_bytes >= PART_BYTES:
            yield pa.Table.from_pylist(held, schema)
            held, held_bytes = [], 0
    if held:
        yield pa.Table.from_pylist(held, schema)


def unit_name(prefix: str, unit: int) -> str:
    """Name of the record that a unit publishes last."""
    return f"{prefix}/unit-{unit:05}.json"


def finish_reading(store: WorkStore, prefix: str, num_units: int) -> ReadCounts:
    """Join the records of all units: publishes the list of parts, returns the counts."""
    total = ReadCounts()
    names: list[str] = []
    documents: list[int] = []
    for unit in range(num_units):
        record = json.loads(store.content(unit_name(prefix, unit)))
        total.add(ReadCounts(**record["counts"]))
        names += [_part(prefix, unit, number) for number in range(len(record["parts"]))]
        documents += record["parts"]
    content = json.dumps({"names": names, "documents": documents})
    store.publish(f"{prefix}/{PARTS}", content.encode())
    return total


def _part(prefix: str, unit: int, number: int) -> str:
    return f"{prefix}/part-{unit:05}-{number:03}.arrow"
