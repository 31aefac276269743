"""The index of a block cache: a few arrays in a file that every process of the machine maps.

Only `block_of_slot` says what a slot holds. `slot_of_block` tells where to look for a block and may be stale
or, after a power cut, nonsense: what it says counts if the slot agrees. So an entry is changed by one aligned
store, a file of zeros is an empty table, and there is nothing to repair after a crash.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"BRAIDBLK"
_VERSION = 1
_HEADER = struct.Struct("<8sQQQQ64s")  # magic, version, num_blocks, num_slots, slot_bytes, owner
_CHECKSUM = struct.Struct("<Q")
_PAGE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class TableShape:
    """What a table is for. A table of any other shape is of no use and is thrown away."""

    corpus_fingerprint: str
    num_blocks: int
    """Blocks in the corpus."""
    slot_bytes: int
    """Size of a slot, which holds one block."""

    def header(self, num_slots: int) -> bytes:
        """First bytes of the file, with a checksum of themselves."""
        from xxhash import xxh3_64_intdigest

        owner = self.corpus_fingerprint.encode()
        fields = (_MAGIC, _VERSION, self.num_blocks, num_slots, self.slot_bytes, owner)
        header = _HEADER.pack(*fields)
        return header + _CHECKSUM.pack(xxh3_64_intdigest(header))


class _Section(NamedTuple):
    offset: int
    dtype: Any
    length: int


class BlockTable:
    """A table in its file, mapped. What is stored here is seen by all processes at once."""

    def __init__(self, path: Path, shape: TableShape, num_slots: int) -> None:
        sections, size = _layout(shape, num_slots)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)
        self.shape = shape
        self.num_slots = num_slots
        self.slot_of_block = self._array(sections["slot_of_block"])
        """uint32 (num_blocks,): where a block is, if it is anywhere."""
        self.block_of_slot = self._array(sections["block_of_slot"])
        """int64 (num_slots,): 1 + the block whose bytes are in the slot, whole; 0 for none."""
        self.generation = self._array(sections["generation"])
        """int64 (num_slots,): grows by one before the slot is overwritten."""
        self.last_used = self._array(sections["last_used"])
        """int64 (num_slots,): nanoseconds since 1970; 0 for a slot that is free."""

    def _array(self, section: _Section) -> NDArray[Any]:
        return np.frombuffer(self._memory, section.dtype, section.length, section.offset)

    @staticmethod
    def open(path: Path, shape: TableShape) -> BlockTable | None:
        """The table in `path`; None when there is none, or one of another shape or version, or a torn one."""
        try:
            with path.open("rb") as file:
                header = file.read(_HEADER.size + _CHECKSUM.size)
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return None
        if len(header) < _HEADER.size + _CHECKSUM.size:
            return None
        num_slots = _HEADER.unpack_from(header)[3]
        if header != shape.header(num_slots) or size != _layout(shape, num_slots)[1]:
            return None
        return BlockTable(path, shape, num_slots)

    @staticmethod
    def create(path: Path, shape: TableShape, num_slots: int) -> BlockTable:
        """Put an empty table at `path`, in place of any other."""
        partial = path.with_suffix(".partial")
        _write_empty(partial, shape, num_slots)
        partial.replace(path)
        return BlockTable(path, shape, num_slots)

    def copied(self, path: Path, shape: TableShape, num_slots: int) -> BlockTable:
        """Put a copy with `num_slots` slots at `path`; slots beyond that are forgotten.

        `shape` is the table's own, or that of a later version of its corpus: the same blocks, and more.
        """
        partial = path.with_suffix(".partial")
        _write_empty(partial, shape, num_slots)
        copy = BlockTable(partial, shape, num_slots)
        kept = min(num_slots, self.num_slots)
        copy.slot_of_block[: self.shape.num_blocks] = self.slot_of_block
        for name in ("block_of_slot", "generation", "last_used"):
            getattr(copy, name)[:kept] = getattr(self, name)[:kept]
        partial.replace(path)
        return copy


def _layout(shape: TableShape, num_slots: int) -> tuple[dict[str, _Section], int]:
    """Where the arrays lie, each on pages of its own, and the size of the file."""
    sections = {}
    offset = _PAGE
    for name, dtype, count in (
        ("slot_of_block", np.uint32, shape.num_blocks),
        ("block_of_slot", np.int64, num_slots),
        ("generation", np.int64, num_slots),
        ("last_used", np.int64, num_slots),
    ):
        sections[name] = _Section(offset, dtype, count)
        offset += -(-np.dtype(dtype).itemsize * count // _PAGE) * _PAGE
    return sections, offset


def _write_empty(path: Path, shape: TableShape, num_slots: int) -> None:
    """All of the file is allocated now: on a full disk a store through a map would kill the process."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _layout(shape, num_slots)[1])
        file.write(shape.header(num_slots))
