"""A segment: what one `braidstream add` appends to a corpus, in a folder of its own.

    segments/0002/shards/            its shards, with an index.json, and blocks.npy
    segments/0002/tree/              leaf_offsets.npy, and where its documents came from
    segments/0002/new/cards/, …      files of the corpus that it changed: they stand for cards/, …

The number is that of the version that it makes. Nothing in the folder changes once a manifest names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from pipeline.corpus.manifest import AddedEntry, Counts, FileEntry, Manifest, ShardEntry

NEW = "new"
"""Folder in a segment's folder for the files that stand for others."""

Entry = TypeVar("Entry", bound=FileEntry)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentFiles:
    """What is in a segment's folder; names are relative to it."""

    shards: tuple[ShardEntry, ...]
    """In the order of their samples."""
    leaf_offsets: FileEntry
    blocks: FileEntry
    counts: Counts
    """Of this segment alone."""
    own: Sequence[FileEntry] = ()
    """What describes this segment: an index of the shards, provenance."""
    new: Sequence[FileEntry] = ()
    """What stands for files of the corpus, as NEW/NAME."""


def segment_folder(version: int) -> str:
    """Where the segment that makes this version lies, relative to the corpus."""
    return f"segments/{version:04d}"


def appended(manifest: Manifest, segment: SegmentFiles, *, empty_leaves: int) -> Manifest:
    """`manifest` and one more segment; `empty_leaves` counts those without a sample in any of them."""
    folder = segment_folder(manifest.version + 1)

    def placed(entry: Entry) -> Entry:
        return replace(entry, file=f"{folder}/{entry.file}")

    replaced = {entry.file.removeprefix(f"{NEW}/") for entry in segment.new}
    kept = [entry for entry in manifest.extras if standing_for(entry.file) not in replaced]
    added = AddedEntry(
        follows=manifest.fingerprint,
        shards=len(segment.shards),
        leaf_offsets=placed(segment.leaf_offsets),
        blocks=placed(segment.blocks),
        counts=segment.counts,
    )
    before, more = asdict(manifest.counts), asdict(segment.counts)
    return replace(
        manifest,
        counts=Counts(**{name: count + more[name] for name, count in before.items()}),
        tree=replace(manifest.tree, empty_leaves=empty_leaves),
        shards=(*manifest.shards, *map(placed, segment.shards)),
        added=(*manifest.added, added),
        extras=(*kept, *map(placed, segment.own), *map(placed, segment.new)),
    )


def standing_for(file: str) -> str:
    """The name under which a file of the corpus is asked for: that of the file whose place it takes."""
    folder, _, rest = file.partition(f"/{NEW}/")
    return rest if rest and folder.startswith("segments/") else file


def current_name(manifest: Manifest, name: str) -> str:
    """Where the newest content of the file `name` is: there, or in the segment that wrote it anew."""
    names = (entry.file for entry in manifest.extras)
    return next((file for file in names if standing_for(file) == name), name)
