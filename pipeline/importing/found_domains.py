"""Which domains a folder full of shards holds: names, formats and columns, before any shard is read.

    PREFIX/DOMAIN/index.json, shard.00000.mds, …      MDS: one folder per domain
    PREFIX/DOMAIN/….tar                               tar: one folder per domain, or
    PREFIX/DOMAIN-000000.tar, DOMAIN-000001.tar, …    one set of numbered names per domain

DOMAIN may be a path of several folders. Domains are numbered in the order of their names.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pipeline.corpus.places import Place
from pipeline.errors import CorpusError
from pipeline.stores.object_store import ObjectFacts

OUR_FOLDERS = ("tree", "cards", "index")
"""The import writes into these; a domain cannot be called so. `targets` is skipped, too."""

_MDS = re.compile(r"\.mds(\.\w+)?$")
_TAR = re.compile(r"\.tar$")
_COMPRESSED_TAR = re.compile(r"\.(tgz|tar\.(gz|bz2|xz|zst))$")
_NUMBER = re.compile(r"[-_.]?\d+$")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundShard:
    """One shard, as a listing and its index describe it."""

    file: str
    bytes: int
    samples: int | None = None
    """None for tar shards, which have no index."""
    sha256: str | None = None
    """What the index says it is, if it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundDomain:
    """One domain and its shards, in their order."""

    name: str
    shard_format: str
    """`mds` or `webdataset`."""
    shards: tuple[FoundShard, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    """MDS encoding of each column; empty for tar shards."""
    index: str | None = None
    """The index.json of MDS shards."""


def find_domains(place: Place, listed: Mapping[str, ObjectFacts]) -> tuple[FoundDomain, ...]:
    """The domains of `place`, where `listed` is what is there, in the order of their names.

    Raises `CorpusError` when there are none, when they differ in format or columns, or when their shards
    cannot be read by range.
    """
    files = {name: listed[name].bytes for name in sorted(listed)}
    domains = _find(place, files)
    if not domains:
        raise CorpusError(
            f"{place.url} holds no shards: none of its {len(files):,} files is a .mds or .tar file. Give the "
            "prefix whose folders are the domains, each with MDS shards and their index.json or with tar "
            "shards."
        )
    first = domains[0]
    for domain in domains:
        if domain.shard_format != first.shard_format:
            raise CorpusError(
                f"the domain {first.name!r} holds {first.shard_format} shards, {domain.name!r} "
                f"{domain.shard_format}: a corpus has one format. Import them as two corpora, or convert one."
            )
        if domain.columns != first.columns:
            raise CorpusError(
                f"the domain {first.name!r} has the columns {dict(first.columns)}, {domain.name!r} has "
                f"{dict(domain.columns)}: a corpus has one set of columns. Write one of them again."
            )
    return tuple(domains)


def _find(place: Place, files: Mapping[str, int]) -> list[FoundDomain]:
    mds: dict[str, list[str]] = defaultdict(list)
    tars: dict[str, list[str]] = defaultdict(list)
    for name in files:
        path = PurePosixPath(name)
        if path.parts[0] == "targets" or not (
            _MDS.search(name) or _TAR.search(name) or _COMPRESSED_TAR.search(name)
        ):
            continue
        if path.parts[0] in OUR_FOLDERS and len(path.parts) > 1:
            raise CorpusError(
                f"{place.address(name)} lies in a folder {path.parts[0]!r}, where the import writes files of "
                "its own. Rename the folder."
            )
        if _COMPRESSED_TAR.search(name):
            raise CorpusError(
                f"{place.address(name)} is compressed, so no sample of it can be read alone. Decompress it "
                "(members such as .jpg or .json.gz stay compressed by themselves)."
            )
        folder = "" if len(path.parts) == 1 else path.parent.as_posix()
        if _MDS.search(name):
            mds[folder].append(name)
        else:
            tars[folder or _NUMBER.sub("", path.stem) or path.stem].append(name)
    if both := sorted(mds.keys() & tars.keys()):
        raise CorpusError(
            f"the domain {both[0]!r} holds MDS shards and tar shards; a domain has one format. Move one "
            "kind to a folder of its own."
        )
    found = [_mds_domain(place, folder, files) for folder in mds]
    for name, members in tars.items():
        shards = tuple(FoundShard(file=file, bytes=files[file]) for file in members)
        found.append(FoundDomain(name=name, shard_format="webdataset", shards=shards))
    return sorted(found, key=lambda domain: domain.name.split("/"))


def _mds_domain(place: Place, folder: str, files: Mapping[str, int]) -> FoundDomain:
    """Read the index.json of one folder of MDS shards."""
    inside = f"{folder}/" if folder else ""
    index = f"{inside}index.json"
    if index not in files:
        raise CorpusError(
            f"{place.address(index)} is missing, though there are MDS shards beside it: MDSWriter writes it "
            "last, so the shards are unfinished. Write them again, or copy the index as well."
        )
    try:
        described = json.loads(place.read(index))["shards"]
        shards = tuple(_mds_shard(place, inside, shard, files) for shard in described)
        columns = [_columns(place, index, shard) for shard in described]
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"{place.address(index)} is no index of MDS shards ({type(error).__name__}: {error}). Write the "
            "shards again, or copy the index again."
        ) from error
    name = folder or PurePosixPath(place.url).name
    if not sum(shard.samples or 0 for shard in shards):
        raise CorpusError(
            f"the domain {name!r} is empty: {place.address(index)} lists no samples. Write its samples, or "
            "leave the folder out."
        )
    if any(other != columns[0] for other in columns):
        raise CorpusError(
            f"{place.address(index)} lists shards with different columns: a corpus has one set of columns. "
            "Write the shards again."
        )
    return FoundDomain(
        name=name, shard_format="mds", shards=shards, columns=columns[0], index=index
    )


def _mds_shard(
    place: Place, inside: str, shard: dict[str, Any], files: Mapping[str, int]
) -> FoundShard:
    raw = shard["raw_data"]
    file = f"{inside}{raw['basename']}"
    if shard["version"] != 2 or shard["format"] != "mds":
        raise CorpusError(
            f"{place.address(file)} is of the format {shard['format']!r}, version {shard['version']!r}; MDS "
            "version 2 can be imported. Write it with MDSWriter."
        )
    if file not in files:
        if shard["compression"]:
            raise CorpusError(
                f"{place.address(file)} is there only compressed ({shard['compression']}), so no sample of "
                "it can be read alone. Write the shards again with MDSWriter(compression=None), or "
                "decompress them."
            )
        raise CorpusError(
            f"{place.address(file)} is missing, though its index.json lists it. Copy it again."
        )
    if files[file] != raw["bytes"]:
        raise CorpusError(
            f"{place.address(file)} has {files[file]:,} bytes, its index.json says {raw['bytes']:,}: it was "
            "cut off or replaced. Copy or write it again."
        )
    return FoundShard(
        file=file,
        bytes=files[file],
        samples=int(shard["samples"]),
        sha256=(raw.get("hashes") or {}).get("sha256"),
    )


def _columns(place: Place, index: str, shard: dict[str, Any]) -> dict[str, str]:
    names = shard["column_names"]
    if names != sorted(names):
        raise CorpusError(
            f"{place.address(index)} has its columns in the order {names}; MDSWriter sorts them, and so must "
            "whoever else writes MDS. Write the shards again."
        )
    return dict(zip(names, shard["column_encodings"], strict=True))
