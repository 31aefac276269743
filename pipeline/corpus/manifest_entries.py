"""What a manifest is made of: files, shards, blocks, schemas, targets, segments, each checked by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.errors import CorpusError


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
