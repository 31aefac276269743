"""The manifest: the one JSON file that makes a folder a corpus. Written last, read first.

docs/format.md describes every file it names. The fingerprint is a hash of the manifest without itself;
the manifest holds the checksum of every other file and no timestamp, so one fingerprint means one corpus,
byte for byte. Documents that are added later make a new version: another manifest, which names all that the
one before it names and more. That one stays, so whoever reads it is not disturbed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pipeline.errors import CorpusError
from pipeline.json_values import from_json
from pipeline.whole_files import write_whole

FORMAT = "braidstream-corpus"
FORMAT_VERSION = 2
"""Of a corpus that is as it was built."""
ADDED_FORMAT_VERSION = 3
"""Of a corpus that was added to, which readers of version 2 would take for half of itself."""
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
        leads_away = path.is_absolute() or ".." in path.parts or "://" in self.file
        if leads_away or not path.parts or "\\" in self.file:
            raise CorpusError(
                f"the manifest names the file {self.file!r}; a corpus refers only to files inside its "
                "own folder. The manifest is damaged or was tampered with: rebuild or fetch it again."
            )
        if not re.fullmatch("[0-9a-f]{64}", self.sha256) or self.bytes < 0:
            raise CorpusError(
                f"the manifest describes {self.file} by {self.bytes} bytes and the sha256 {self.sha256!r}, "
                "which is none: it is damaged or was tampered with. Rebuild or fetch it again."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry(FileEntry):
    """One shard: `samples` samples in the bytes data_offset .. data_offset + data_bytes - 1."""

    samples: int
    data_offset: int
    """Byte at which the first sample begins, and with it the first block."""
    data_bytes: int
    """Bytes from there to the end of the last sample; blocks cover these and nothing else."""

    def __post_init__(self) -> None:
        FileEntry.__post_init__(self)
        if self.data_offset + self.data_bytes > self.bytes:
            raise CorpusError(
                f"the manifest says that {self.file} holds {self.data_bytes:,} bytes of samples from byte "
                f"{self.data_offset:,} on, but only {self.bytes:,} bytes in all: it is damaged. Fetch or "
                "build the corpus again."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockEntry(FileEntry):
    """Checksums of the blocks, the unit of transfer: an array uint64 (num_blocks,) of XXH3-64.

    Block j of a shard is its bytes data_offset + j * block_bytes onwards, up to block_bytes of them; blocks
    are numbered through the shards in their order.
    """

    block_bytes: int

    def __post_init__(self) -> None:
        FileEntry.__post_init__(self)
        if self.block_bytes < 1:
            raise CorpusError(
                f"blocks of {self.block_bytes} bytes cannot be: the manifest is damaged."
            )


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
    """Samples of one length: blocks of tokens, found by arithmetic.

    Sample i of a shard begins at its byte data_offset + i * stride_bytes.
    """

    tokens_per_sample: int
    dtype: str
    """`uint16` or `uint32`, little endian."""
    stride_bytes: int
    """Bytes from one sample to the next: sample_bytes in MDS, the tar header and padding more in tar."""
    column: str = "tokens"
    """Name of the MDS column; of a tar member, the extension."""

    def __post_init__(self) -> None:
        if self.dtype not in ("uint16", "uint32"):
            raise CorpusError(
                f"tokens are stored as {self.dtype!r}; this version reads uint16, uint32."
            )
        if self.stride_bytes < self.sample_bytes:
            raise CorpusError(
                f"samples of {self.sample_bytes:,} bytes cannot follow each other every "
                f"{self.stride_bytes:,} bytes: the manifest is damaged."
            )

    @property
    def sample_bytes(self) -> int:
        """Length of a sample."""
        return self.tokens_per_sample * (2 if self.dtype == "uint16" else 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordSchema:
    """Samples of varying length: MDS records, or the members of one key in a tar."""

    columns: dict[str, str]
    """MDS encoding of each column; empty for tar shards, where the members' extensions say it."""
    extents: FileEntry
    """Array uint64 (num_samples, 2): each sample's first byte in its shard, and its length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeEntry:
    """The cluster tree as arrays (see docs/format.md)."""

    levels: tuple[int, ...]
    """Number of domains per level, from the root (1) to the leaves."""
    leaf_offsets: FileEntry
    split_order: FileEntry
    centroids: tuple[FileEntry, ...]
    """One file per level below the root; none for domains that were not clustered here."""
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
class AddedEntry:
    """A segment that `braidstream add` appended: documents in leaf order, in shards of its own."""

    follows: str
    """Fingerprint of the version that it was added to."""
    shards: int
    """How many of the manifest's shards are its own."""
    leaf_offsets: FileEntry
    """Array int64 (num_leaves + 1,): sample at which each leaf begins, counted from 0 in this segment."""
    blocks: FileEntry
    """Checksums of the blocks of its shards; see `BlockEntry`."""
    counts: Counts
    """Of this segment alone."""

    def __post_init__(self) -> None:
        if self.shards < 1 or not re.fullmatch("[0-9a-f]{64}", self.follows):
            raise CorpusError(
                f"the manifest describes a segment of {self.shards} shards that follows version "
                f"{self.follows!r}, which is none: it is damaged. Fetch or build the corpus again."
            )


class Segment(NamedTuple):
    """A part of the corpus that was written at one time, in leaf order."""

    first_sample: int
    """Position of its first sample."""
    num_samples: int
    shards: tuple[ShardEntry, ...]
    leaf_offsets: FileEntry
    blocks: FileEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything a reader needs to open a corpus."""

    counts: Counts
    """Of the whole corpus."""
    sample: SampleSchema | None
    """Of token corpora, whose samples all have one length."""
    records: RecordSchema | None = None
    """Of all others."""
    tokenizer: TokenizerEntry | None
    """None where the tokens, or texts, came from elsewhere."""
    tree: TreeEntry
    """With the leaf offsets of the first segment."""
    shards: tuple[ShardEntry, ...]
    """In the order of positions: those of the first segment, then those of each that was added."""
    blocks: BlockEntry
    """Of the first segment; blocks have one size in all of them."""
    heldout: FileEntry | None
    targets: tuple[TargetEntry, ...]
    embedder: str
    """Name of the embedding model that the tree was fitted on; `none` if the domains came from elsewhere."""
    build: dict[str, Any] = field(default_factory=dict)
    """The options of the build, for the record."""
    extras: tuple[FileEntry, ...] = ()
    """Files for people rather than for the stream: cards, term counts, provenance."""
    shard_format: str = "mds"
    """`mds` or `webdataset`."""
    added: tuple[AddedEntry, ...] = ()
    """What was added since the build, oldest first."""
    format: str = FORMAT

    def __post_init__(self) -> None:
        if (self.sample is None) == (self.records is None):
            raise CorpusError(
                "the manifest must describe samples of one length (`sample`) or records, and not both."
            )
        if self.shard_format not in ("mds", "webdataset"):
            raise CorpusError(
                f"the shards are of the format {self.shard_format!r}; this version reads mds, webdataset."
            )
        if self.added and (
            self.sample is None or sum(entry.shards for entry in self.added) >= len(self.shards)
        ):
            raise CorpusError(
                f"the manifest shares out {len(self.shards)} shards to {len(self.added)} added segments so "
                "that the first has none, or adds to a corpus of records: it is damaged. Fetch it again."
            )
        if self.sample is not None:
            self._check_geometry(self.sample)

    def _check_geometry(self, sample: SampleSchema) -> None:
        """Positions become places by arithmetic, so the arithmetic must stay inside the shards."""
        for shard in self.shards:
            needed = (shard.samples - 1) * sample.stride_bytes + sample.sample_bytes
            if shard.samples < 1 or needed > shard.data_bytes:
                raise CorpusError(
                    f"the manifest says that {shard.file} holds {shard.samples:,} samples, which take "
                    f"{needed:,} bytes, in {shard.data_bytes:,}: it is damaged. Fetch or build the corpus "
                    "again."
                )
        if self.blocks.block_bytes % sample.stride_bytes:
            raise CorpusError(
                f"blocks of {self.blocks.block_bytes:,} bytes do not hold whole samples of "
                f"{sample.stride_bytes:,}: the manifest is damaged. Fetch or build the corpus again."
            )

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the corpus but the manifest itself, shards last."""
        named: list[FileEntry | None] = [
            self.tokenizer,
            self.tree.leaf_offsets,
            self.tree.split_order,
            *self.tree.centroids,
            *self.tree.parents,
            self.heldout,
            self.blocks,
            *(file for entry in self.added for file in (entry.leaf_offsets, entry.blocks)),
            self.records.extents if self.records else None,
            *(
                file
                for target in self.targets
                for file in (target.train, target.test, target.histogram)
            ),
            *self.extras,
            *self.shards,
        ]
        return tuple(entry for entry in named if entry is not None)

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts of the corpus in the order of positions: what was built, then what was added."""
        segments: list[Segment] = []
        shard = sample = 0
        num_shards = len(self.shards) - sum(entry.shards for entry in self.added)
        parts: list[tuple[int, FileEntry, FileEntry]] = [
            (num_shards, self.tree.leaf_offsets, self.blocks)
        ]
        parts += [(entry.shards, entry.leaf_offsets, entry.blocks) for entry in self.added]
        for count, leaf_offsets, blocks in parts:
            shards = self.shards[shard : shard + count]
            samples = sum(entry.samples for entry in shards)
            segments.append(Segment(sample, samples, shards, leaf_offsets, blocks))
            shard, sample = shard + count, sample + samples
        return tuple(segments)

    @property
    def format_version(self) -> int:
        """What a reader must know to read it."""
        return ADDED_FORMAT_VERSION if self.added else FORMAT_VERSION

    @property
    def version(self) -> int:
        """1 as built, and one more for every time that documents were added."""
        return 1 + len(self.added)

    @property
    def earlier(self) -> tuple[str, ...]:
        """Fingerprints of the versions before this one, the first one first."""
        return tuple(entry.follows for entry in self.added)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the canonical manifest: equal for equal corpora, and only for those."""
        return hashlib.sha256(_canonical(self._content())).hexdigest()

    def _content(self) -> dict[str, Any]:
        """As plain JSON, without the fingerprint; `added` only where something was."""
        content = asdict(self)
        if not self.added:
            del content["added"]
        return {**content, "format_version": self.format_version}

    def to_json(self) -> str:
        """The text of the manifest's file."""
        content = {**self._content(), "fingerprint": self.fingerprint}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)

    def write(self, folder: Path) -> None:
        """Commit: put the manifest into `folder` atomically, after everything it names."""
        write_whole(folder / MANIFEST_FILE, self.to_json().encode())

    @staticmethod
    def read(folder: Path, name: str = MANIFEST_FILE) -> Manifest:
        """Read and check the manifest of `folder`; `CorpusError` says what is wrong with it."""
        path = folder / name
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if name != MANIFEST_FILE:
                raise CorpusError(
                    f"{str(folder)!r} has no {name}: a copy keeps the versions that it once was. Open the "
                    "newest version, or the corpus that this was copied from."
                ) from None
            raise CorpusError(
                f"{str(folder)!r} is not a corpus: it has no {MANIFEST_FILE}, which a build writes last. "
                f"Build one with `braidstream build CORPUS --out {folder}`, or run an unfinished build again."
            ) from None
        return parse_manifest(text, where=str(path))


def version_file(version: int) -> str:
    """Where the manifest of an earlier version is kept once there is a later one."""
    return f"manifest.v{version}.json"


def is_manifest_file(name: str) -> bool:
    """Whether a file of this name would be taken for a manifest, or for one that is being copied."""
    return re.match(r"manifest\.(v\d+\.)?json", name) is not None


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
    found = content.pop("format_version", None)
    if found not in (FORMAT_VERSION, ADDED_FORMAT_VERSION):
        raise CorpusError(
            f"{where} has format version {found!r}; this Braidstream reads the versions {FORMAT_VERSION} and "
            f"{ADDED_FORMAT_VERSION}. Install a matching Braidstream, or build the corpus again."
        )
    stored = content.pop("fingerprint", None)
    manifest = from_json(Manifest, content, where)
    if manifest.fingerprint != stored or manifest.format_version != found:
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
