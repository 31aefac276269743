"""Files that appear whole or not at all, also after a power cut."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def unfinished(path: Path) -> Path:
    """Where `write_whole` puts what has not got its name yet."""
    return path.with_name(path.name + ".new")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, have it on the disk, then give it its own.

    What cannot be written (a full disk) leaves nothing behind.
    """
    partial = unfinished(path)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
