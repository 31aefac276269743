"""Where a corpus in an object store is cached on this machine, and how much of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CACHE_BYTES = 64 * 2**30
CONNECTIONS = 16


def default_cache_folder() -> Path:
    """$BRAIDSTREAM_CACHE, else `braidstream` in $XDG_CACHE_HOME, else ~/.cache/braidstream."""
    ours = os.environ.get("BRAIDSTREAM_CACHE")
    everyones = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(everyones).is_absolute():  # the specification says that others are passed over
        everyones = "~/.cache"
    return Path(ours or f"{everyones}/braidstream").expanduser().absolute()


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSettings:
    """The cache of one process. Processes that name the same folder share what is in it."""

    folder: Path
    """On a local disk; every corpus has a folder of its own in it."""
    bytes: int = CACHE_BYTES
    """Most that the blocks of one corpus may take. Its small files come on top, and 28 bytes a block."""
    connections: int = CONNECTIONS
    """Requests of this process that are under way at once."""

    def __post_init__(self) -> None:
        if self.bytes < 1 or not 1 <= self.connections <= 256:
            raise ValueError(
                f"a cache needs cache_bytes of 1 or more and 1 to 256 connections; found {self.bytes:,} "
                f"bytes and {self.connections} connections."
            )

    @staticmethod
    def of(
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        connections: int | None = None,
    ) -> CacheSettings:
        """Settings with defaults in place of None: `default_cache_folder`, 64 GiB, 16 connections."""
        return CacheSettings(
            folder=Path(cache).expanduser().absolute() if cache else default_cache_folder(),
            bytes=CACHE_BYTES if cache_bytes is None else int(cache_bytes),
            connections=CONNECTIONS if connections is None else connections,
        )
