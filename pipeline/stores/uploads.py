"""What is handed to a store for an upload: parts, and the last of them only if all of them are right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import StorageError


def checked_parts(
    content: bytes | Path,
    part_bytes: int,
    *,
    address: str,
    sha256: str | None,
    on_position: Callable[[int], None] | None,
) -> Iterator[bytes]:
    """The content in parts; `StorageError` in place of the last one if `sha256` (hex) is not that of all.

    When the last part does not come, the client drops the upload and nothing is committed. `address`, for the
    error, is where the content goes. `on_position` is told how many bytes came before each part.
    """
    digest = hashlib.sha256()
    held: bytes | None = None
    position = 0
    for part in _parts(content, part_bytes):
        digest.update(part)
        if on_position is not None:
            on_position(position)
        position += len(part)
        if held is not None:
            yield held
        held = part
    if sha256 is not None and digest.hexdigest() != sha256:
        raise StorageError(
            f"what was to become {address} has the sha256 {digest.hexdigest()[:16]}…, expected "
            f"{sha256[:16]}…: the file changed or is damaged. Nothing was committed; make it again."
        )
    yield held or b""


def _parts(content: bytes | Path, part_bytes: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield from (content[at : at + part_bytes] for at in range(0, len(content), part_bytes))
        return
    with content.open("rb") as file:
        while part := file.read(part_bytes):
            yield part
