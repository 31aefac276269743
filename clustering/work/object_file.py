"""An object of a store as a file that can be read at any place, for libraries that take files."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from pipeline.stores.object_store import ObjectStore

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ObjectFile(io.RawIOBase):
    """Every read is a ranged request, a long one several: put a buffer around it for short reads.

    Raises `StorageError` as `ObjectStore.read_range` does.
    """

    def __init__(self, store: ObjectStore, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """The place, in bytes from the start."""
        return self._place

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer at the end."""
        end = self._size if size is None or size < 0 else min(self._place + size, self._size)
        content = self._store.read_range(self._name, self._place, max(end, self._place))
        self._place += len(content)
        return content

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as the object goes."""
        view = memoryview(buffer).cast("B")
        content = self.read(len(view))
        view[: len(content)] = content
        return len(content)
