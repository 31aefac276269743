"""The manifest: the one JSON file that makes a folder a corpus. Written last, read first.

docs/format.md describes every file it names. The fingerprint is a hash of the manifest without itself;
the manifest holds the checksum of every other file and no timestamp, so one fingerprint means one corpus,
byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.errors import CorpusError

FORMAT = "braidstream-corpus"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of the corpus."""

    file: str
    """Path relative to the corpus folder, with forward slashes."""
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in self.file:
            raise CorpusError(
                f"the manifest names the file {self.file!r}; a corpus refers only to files inside its "
                "own folder. The manifest is damaged or was tampered with: rebuild or fetch it again."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry(FileEntry):
    """One MDS shard: a header, then `samples` records of fixed length."""

    samples: int
    data_offset: int
    """Byte at which the first sample begins; sample i begins at data_offset + i * sample_bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerEntry(FileEntry):
    """The tokenizer that made the blocks."""

    vocab_size: int
    separator_id: int
    """Token that follows every document."""
    pad_id: int
    """Token that fills what is left of a last block; losses mask it."""
    source: str
    """Where it came from: a hub name, a file name, or `trained`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSchema:
    """What one sample is: a block of tokens of fixed length."""

    tokens_per_sample: int
    dtype: str
    """`uint16` or `uint32`, little endian."""
    column: str = "tokens"
    """Name of the MDS column."""

    def __post_init__(self) -> None:
        if self.dtype not in ("uint16", "uint32"):
            raise CorpusError(
                f"tokens are stored as {self.dtype!r}; this version reads uint16, uint32."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeEntry:
    """The cluster tree as arrays (see docs/format.md)."""

    levels: tuple[int, ...]
    """Number of domains per level, from the root (1) to the leaves."""
    leaf_offsets: FileEntry
    split_order: FileEntry
    centroids: tuple[FileEntry, ...]
    """One file per level below the root."""
    parents: tuple[FileEntry, ...]
    empty_leaves: int
    """Leaves that own no sample, because every block they touch belongs to a neighbour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetEntry:
    """A specialised target set, tokenised like the corpus."""

    name: str
    train: FileEntry
    test: FileEntry | None
    histogram: FileEntry
    train_documents: int
    test_documents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What went in and what came out."""

    documents: int
    """Documents in the shards."""
    tokens: int
    """Tokens in the shards, separators included, padding not."""
    padding_tokens: int
    empty_documents: int
    """Dropped: nothing but white space."""
    duplicate_documents: int
    """Dropped: same text as an earlier document or as a document of a target set."""
    heldout_documents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything a reader needs to open a corpus."""

    counts: Counts
    sample: SampleSchema
    tokenizer: TokenizerEntry
    tree: TreeEntry
    shards: tuple[ShardEntry, ...]
    heldout: FileEntry | None
    targets: tuple[TargetEntry, ...]
    embedder: str
    """Name of the embedding model that the tree was fitted on."""
    build: dict[str, Any] = field(default_factory=dict)
    """The options of the build, for the record."""
    extras: tuple[FileEntry, ...] = ()
    """Files for people rather than for the stream: cards, term counts, provenance."""
    shard_format: str = "mds"
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the canonical manifest: equal for equal corpora, and only for those."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()

    def write(self, folder: Path) -> None:
        """Commit: put the manifest into `folder` atomically, after everything it names."""
        content = {**asdict(self), "fingerprint": self.fingerprint}
        partial = folder / (MANIFEST_FILE + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, sort_keys=True, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / MANIFEST_FILE)

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read and check the manifest of `folder`; `CorpusError` says what is wrong with it."""
        path = folder / MANIFEST_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise CorpusError(
                f"{str(folder)!r} is not a corpus: it has no {MANIFEST_FILE}, which a build writes last. "
                f"Build one with `braidstream build CORPUS --out {folder}`, or run an unfinished build again."
            ) from None
        return parse_manifest(text, where=str(path))


def parse_manifest(text: str, *, where: str) -> Manifest:
    """Turn JSON into a checked `Manifest`; `where` names the source in errors."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{where} is no JSON ({error}); fetch or build the corpus again."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CorpusError(f"{where} is not the manifest of a Braidstream corpus.")
    found = content.get("format_version")
    if found != FORMAT_VERSION:
        raise CorpusError(
            f"{where} has format version {found!r}; this Braidstream reads version {FORMAT_VERSION}. "
            "Install a matching Braidstream, or build the corpus again."
        )
    stored = content.pop("fingerprint", None)
    manifest = _parse(Manifest, content, where)
    if manifest.fingerprint != stored:
        raise CorpusError(
            f"{where} does not match its own fingerprint (stored {str(stored)[:12]}…, computed "
            f"{manifest.fingerprint[:12]}…): it was edited or damaged. Fetch or build the corpus again."
        )
    return manifest


def file_entry(folder: Path, name: str) -> FileEntry:
    """Measure one file that is already in `folder`."""
    path = folder / name
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(file=name, bytes=path.stat().st_size, sha256=digest)


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


T = TypeVar("T")


def _parse(kind: type[T], content: Any, where: str) -> T:
    """Build the dataclass `kind` from plain JSON, refusing missing and unknown fields."""
    if not isinstance(content, dict):
        raise CorpusError(f"{where}: {kind.__name__} should be an object, found {content!r}.")
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(content) - known):
        raise CorpusError(f"{where}: {kind.__name__} has the unknown fields {unknown}.")
    hints = get_type_hints(kind)
    values = {
        name: _convert(hints[name], value, f"{where}: {name}") for name, value in content.items()
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise CorpusError(f"{where}: {kind.__name__} is incomplete ({error}).") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise CorpusError(f"{where} should be a list, found {value!r}.")
        return tuple(_convert(get_args(hint)[0], item, where) for item in value)
    if isinstance(hint, type) and is_dataclass(hint):
        return _parse(hint, value, where)
    if get_origin(hint) is dict:
        hint = dict
    if hint is int and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise CorpusError(f"{where} should be a whole number, found {value!r}.")
    if hint is not Any and hint is not int and not isinstance(value, hint):
        raise CorpusError(f"{where} should be of type {hint.__name__}, found {value!r}.")
    return value
