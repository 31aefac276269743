"""Tar shards: members whose names share a key are one sample, as stock `webdataset` has it.

`a/0001.jpg` and `a/0001.cls` are the sample `a/0001` with the extensions `jpg` and `cls`: the key ends at the
first dot of the file name, and the members of a sample follow each other. A sample is therefore one stretch
of the tar, a small tar in itself, and can be read alone.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

RECORD_BYTES = 512
"""tar counts in records of this length: a header is one, a file is filled up to whole ones, and two of zeros
end the tar."""

_KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_META = re.compile(r"__[^/]*__($|/)")


class TarGroup(NamedTuple):
    """Where one sample lies in a tar."""

    key: str
    begin: int
    """First byte of its first member's header."""
    end: int
    """One past the padding of its last member."""


def decode_group(content: bytes) -> dict[str, Any]:
    """The members of one sample by extension, as bytes, and its `__key__`.

    Raises `tarfile.TarError` or `ValueError` for a damaged one.
    """
    sample: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member in tar:
            name = _name_of(member)
            if name is not None:
                key, extension = name
                file = tar.extractfile(member)
                assert file is not None, "regular members can be read"
                sample.setdefault("__key__", key)
                sample[extension] = file.read()
        if tar.offset != len(content):  # tarfile takes a damaged header for the end
            raise ValueError(f"its members take {tar.offset:,} bytes of {len(content):,}")
    return sample


def find_groups(file: IO[bytes]) -> Iterator[TarGroup]:
    """The samples of a tar that is read once from front to back.

    Raises `tarfile.TarError` for what is no plain tar, and `ValueError` for a sample with two members of
    one extension, or where the samples end before the tar does.
    """
    key, begin, end = None, 0, 0
    extensions: set[str] = set()
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # or it keeps every header of the tar
            name = _name_of(member)
            if name is None:
                continue
            if name[0] != key:
                if key is not None:
                    yield TarGroup(key, begin, end)
                key, begin, extensions = name[0], member.offset, set()
            if name[1] in extensions:
                raise ValueError(
                    f"the sample {key!r} has two members with the extension {name[1]!r}"
                )
            extensions.add(name[1])
            end = tar.offset
        if key is not None:
            yield TarGroup(key, begin, end)
        rest: Any = tar.fileobj  # tarfile takes a damaged header for the end
        while part := rest.read(2**20):
            if part.strip(b"\0"):
                raise ValueError(
                    f"what follows its first {tar.offset:,} bytes is neither a member nor its end"
                )


def _name_of(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Key and extension of a member that counts."""
    if not member.isreg() or _META.match(member.name):
        return None
    match = _KEY.match(member.name)
    return (match.group(1), match.group(2).lower()) if match else None
