"""Addresses of object stores, and names below them: what is accepted, and what would lead elsewhere."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pipeline.errors import StorageError

SCHEMES = ("s3", "gs", "az", "http", "https")

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and what Python makes of file names that are no UTF-8."""
_QUERY = re.compile(r"[?#]")


def is_address(place: str) -> bool:
    """Whether `place` is an address rather than a local path."""
    return "://" in place


def normalized(address: str) -> str:
    """`address` without trailing slashes, its scheme in small letters; `StorageError` when it is no prefix.

    An address is printed, logged and saved, so one that carries a password or a token is refused, and the
    refusal does not repeat it.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        raise StorageError(
            "an address was given whose bucket or host cannot be one (an unpaired bracket, for instance): it "
            "takes s3://bucket/prefix or the like. Write it again."
        ) from None  # Python's own message may repeat a password
    if "@" in parts.netloc or _QUERY.search(address) or _NO_TEXT.search(address):
        raise StorageError(
            f"a {parts.scheme}:// address was given with a user name, password, query or fragment, which "
            "would end up in logs and checkpoints. Give the plain address; credentials come from the "
            "environment or the cloud's own configuration files. In a name, write %3F for ? and %23 for #."
        )
    if parts.scheme not in SCHEMES or not parts.netloc or "\\" in address:
        raise StorageError(
            f"{address!r} is no address of an object store: it takes s3://bucket/prefix, "
            "gs://bucket/prefix, az://container/prefix, or http(s)://host/folder, with forward slashes."
        )
    segments = parts.path.strip("/").replace("%2e", ".").replace("%2E", ".").split("/")
    if segments != [""] and any(segment in ("", ".", "..") for segment in segments):
        raise StorageError(f"{address!r} has an empty, `.` or `..` part: write the address out.")
    return f"{parts.scheme}://{address.partition('://')[2].rstrip('/')}"


def inside(name: str) -> str:
    """`name`, if it is relative to a prefix and stays below it; `StorageError` if it would leave it."""
    leaves = any(part in ("", ".", "..") for part in name.split("/"))
    if leaves or "\\" in name or "://" in name or _NO_TEXT.search(name):
        raise StorageError(
            f"the name {name!r} is refused: names are UTF-8 without control characters, and relative, with "
            "forward slashes and without empty, `.` or `..` parts, so that nothing outside the corpus is "
            "read or written."
        )
    return name
