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
from pathlib import Path
from typing import Any

from pipeline.corpus.manifest_entries import (
    AddedEntry,
    BlockEntry,
    Counts,
    FileEntry,
    RecordSchema,
    SampleSchema,
    Segment,
    ShardEntry,
    TargetEntry,
    TokenizerEntry,
    TreeEntry,
)
from pipeline.errors import CorpusError
from pipeline.json_values import from_json
from pipeline.whole_files import write_whole

__all__ = [
    "ADDED_FORMAT_VERSION",
    "FORMAT",
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "AddedEntry",
    "BlockEntry",
    "Counts",
    "FileEntry",
    "Manifest",
    "RecordSchema",
    "SampleSchema",
    "Segment",
    "ShardEntry",
    "TargetEntry",
    "TokenizerEntry",
    "TreeEntry",
    "file_entry",
    "is_manifest_file",
    "parse_manifest",
    "version_file",
]

FORMAT = "braidstream-corpus"
FORMAT_VERSION = 2
"""Of a corpus that is as it was built."""
ADDED_FORMAT_VERSION = 3
"""Of a corpus that was added to, which readers of version 2 would take for half of itself."""
MANIFEST_FILE = "manifest.json"


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
        if folder.is_file():
            raise CorpusError(
                f"{str(folder)!r} is a file; a corpus is a folder. Give the one that holds its "
                f"{MANIFEST_FILE}"
                + (f": {str(folder.parent)!r}." if is_manifest_file(folder.name) else ".")
            )
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if name != MANIFEST_FILE:
                raise CorpusError(
                    f"{str(folder)!r} has no {name}: a copy keeps the versions that it once was. Open the "
                    "newest version, or the corpus that this was copied from."
                ) from None
            raise CorpusError(
                f"{str(folder)!r} is not a corpus: it has no {MANIFEST_FILE}, which a build writes last. "
                f"Build one with `braidstream build TEXTS --out {folder}`, or run an unfinished build again."
            ) from None
        return parse_manifest(content, where=str(path))


def version_file(version: int) -> str:
    """Where the manifest of an earlier version is kept once there is a later one."""
    return f"manifest.v{version}.json"


def is_manifest_file(name: str) -> bool:
    """Whether a file of this name would be taken for a manifest, or for one that is being copied."""
    return re.match(r"manifest\.(v\d+\.)?json", name) is not None


def parse_manifest(file: bytes, *, where: str) -> Manifest:
    """Turn JSON into a checked `Manifest`; `where` names the source in errors."""
    try:
        content = json.loads(file.decode())
    except ValueError as error:
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
