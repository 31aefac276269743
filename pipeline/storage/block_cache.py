"""Blocks of one corpus on a local disk, shared by all processes of the machine.

A folder of three files: `data`, a sparse file of slots of one block each, mapped for reading; `table`, the
index (`block_table.py`), mapped too; `lock` (`byte_locks.py`). What keeps it right:

- Readers take no lock. They note the generations of the slots, copy, and look at the generations again: a
  slot that was overwritten under way is read once more (a seqlock).
- A slot is overwritten under one lock: unpublish, raise the generation, write, publish. A process that dies
  between any two of these leaves a slot that holds nothing. The kernel lets one process at a time
  write to a file anyway, so the lock costs nothing.
- Every process checks a block when it first touches it, in every generation. That finds what a crash of the
  machine or a bad disk did to the data.
- A block is claimed, by a lock of its own, while it is being fetched, so no two processes fetch the same.

A corpus that was added to has the same blocks under the same numbers, and more. So its cache begins with what
an earlier version's cache holds, if nobody uses that one any more.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StorageError
from pipeline.storage.block_table import BlockTable, TableShape
from pipeline.storage.blocks import BlockGrid, Ints, block_checksum
from pipeline.storage.byte_locks import ByteLocks

MIN_BLOCKS = 8
"""The fewest blocks that a cache may hold."""
FINGERPRINT_DIGITS = 16
_PAGE = 4096
_CHANGE, _IN_USE, _FIRST_CLAIM = 0, 1, 2
_OLDEST_AT_ONCE = 64


class Found(NamedTuple):
    """Where blocks are, at the moment of asking; arrays of one shape (n,)."""

    slots: Ints
    generations: Ints
    there: NDArray[np.bool_]
    """False where the block is absent; slot and generation mean nothing then."""


class BlockCache:
    """At most `cache_bytes` of the blocks of one corpus, the most recently used ones.

    The first process to open a cache sets its size, and what no longer fits is forgotten; processes that open
    it while it is in use join it at the size it has. `checksums` are XXH3-64, uint64 (num_blocks,). `earlier`
    maps the fingerprints of the versions before this one, oldest first, to how many blocks they had. Raises
    `StorageError` when `cache_bytes` is too small or the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        grid: BlockGrid,
        checksums: NDArray[np.uint64],
        *,
        fingerprint: str,
        cache_bytes: int,
        earlier: Mapping[str, int] | None = None,
    ) -> None:
        self.folder = _folder_of(fingerprint, folder, grid)
        self._earlier = {
            _folder_of(version, folder, grid): (version, blocks)
            for version, blocks in (earlier or {}).items()
        }
        self.slot_bytes = -(-grid.block_bytes // _PAGE) * _PAGE
        self._grid = grid
        self._checksums = checksums
        num_slots = _slots_for(cache_bytes, self.slot_bytes, grid.num_blocks)
        shape = TableShape(
            corpus_fingerprint=fingerprint, num_blocks=grid.num_blocks, slot_bytes=self.slot_bytes
        )
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._locks = ByteLocks(self.folder / "lock")
            with self._locks.exclusive(_CHANGE):
                alone = self._locks.try_exclusive(_IN_USE)
                self._table = self._prepare(shape, num_slots) if alone else self._join(shape)
                self._locks.share(_IN_USE)
            self._data_file = os.open(self.folder / "data", os.O_RDWR | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._data_file)
        self.num_slots = self._table.num_slots
        mapped = mmap.mmap(
            self._data_file, self.num_slots * self.slot_bytes, mmap.MAP_SHARED, mmap.PROT_READ
        )
        self.slots = np.frombuffer(mapped, np.uint8)
        """The data of all slots, read-only: uint8 (num_slots * slot_bytes,)."""
        # The generation that this process has checked, per slot: none yet, and generations only grow.
        self._checked = self._table.generation - 1
        self._oldest: deque[tuple[int, int]] = deque()
        self._writing = threading.Lock()

    def look_up(self, blocks: Ints) -> Found:
        """Where `blocks` (n,) are, whether their bytes are right or not.

        The generation is read before the slot is asked what it holds. Whoever overwrites it does both in the
        other order, so an overwritten slot cannot pass for `unchanged`.
        """
        table = self._table
        slots = np.minimum(table.slot_of_block.take(blocks), self.num_slots - 1).astype(np.int64)
        generations = table.generation.take(slots)
        return Found(slots, generations, table.block_of_slot.take(slots) == blocks + 1)

    def find(self, blocks: Ints) -> Found:
        """Where `blocks` (n,) are to be read. What this process sees for the first time is checked."""
        found = self.look_up(blocks)
        if not (self._checked.take(found.slots) == found.generations).all():
            self._check_new(blocks, *found)
        return found

    def unchanged(self, found: Found) -> NDArray[np.bool_]:
        """Which of the slots have not been overwritten since they were found: bool (n,)."""
        same: NDArray[np.bool_] = self._table.generation.take(found.slots) == found.generations
        return same

    def touch(self, slots: Ints) -> None:
        """These were used just now: they are evicted last."""
        self._table.last_used[slots] = time.time_ns()

    def holds(self, block: int) -> bool:
        """Whether the block is there, checked or not."""
        return bool(self.look_up(np.array([block])).there[0])

    def claim(self, block: int) -> bool:
        """Announce that this process fetches `block`; False when another one is at it."""
        return self._locks.try_exclusive(_FIRST_CLAIM + block)

    def release(self, block: int) -> None:
        """Take the claim back."""
        self._locks.release(_FIRST_CLAIM + block)

    def store(self, block: int, content: bytes) -> None:
        """Keep the checked bytes of `block`, in the place of what was not used for longest."""
        table = self._table
        with self._explained(), self._writing, self._locks.exclusive(_CHANGE):
            slot = self._least_recently_used()
            table.block_of_slot[slot] = 0
            table.generation[slot] += 1
            table.last_used[slot] = 0
            self._write(content, slot * self.slot_bytes)
            self._checked[slot] = table.generation[slot]
            table.last_used[slot] = time.time_ns()
            table.block_of_slot[slot] = block + 1
            table.slot_of_block[block] = slot

    def _prepare(self, shape: TableShape, num_slots: int) -> BlockTable:
        """Alone: take over what earlier processes left, as far as it fits, or begin anew."""
        path, data = self.folder / "table", self.folder / "data"
        table = BlockTable.open(path, shape)
        if table is None:
            path.unlink(missing_ok=True)
            data.unlink(missing_ok=True)
            table = self._take_over(shape, num_slots) or BlockTable.create(path, shape, num_slots)
        elif table.num_slots != num_slots:
            table = table.copied(path, shape, num_slots)
        with data.open("ab") as file:
            file.truncate(num_slots * self.slot_bytes)
        # Of a clock that was set back since, the times would outlive all that is used from now on.
        np.minimum(table.last_used, time.time_ns(), out=table.last_used)
        return table

    def _take_over(self, shape: TableShape, num_slots: int) -> BlockTable | None:
        """What the newest of the earlier versions has cached, moved here; None if that is nothing or in use.

        Killed half-way it leaves a table without its data or the reverse, and both count as empty: blocks are
        checked before they are used.
        """
        for folder, (fingerprint, num_blocks) in reversed(self._earlier.items()):
            if not (folder / "data").is_file():  # nor where one that was killed has moved it away
                continue
            before = TableShape(
                corpus_fingerprint=fingerprint, num_blocks=num_blocks, slot_bytes=shape.slot_bytes
            )
            with closing(ByteLocks(folder / "lock")) as locks, locks.exclusive(_CHANGE):
                if not locks.try_exclusive(_IN_USE):
                    continue
                table = BlockTable.open(folder / "table", before)
                if table is None:
                    continue
                (folder / "data").replace(self.folder / "data")
                table = table.copied(self.folder / "table", shape, num_slots)
                (folder / "table").unlink()
                return table
        return None

    def _join(self, shape: TableShape) -> BlockTable:
        table = BlockTable.open(self.folder / "table", shape)
        if table is None:
            raise StorageError(
                f"the cache {self.folder} is in use by another version of Braidstream. Choose another cache "
                "folder, or wait until the processes that use it have ended."
            )
        return table

    def _check_new(
        self, blocks: Ints, slots: Ints, generations: Ints, there: NDArray[np.bool_]
    ) -> None:
        """Check what this process has not seen yet; clears `there` for blocks that turn out damaged."""
        rows = np.flatnonzero(there & (self._checked.take(slots) != generations))
        _, first = np.unique(slots[rows], return_index=True)
        for row in rows[first]:
            block, slot, generation = int(blocks[row]), int(slots[row]), int(generations[row])
            start, extent = slot * self.slot_bytes, self._grid.extent(block)
            content = self.slots[start : start + extent.end - extent.begin]
            if block_checksum(content) == self._checksums[block]:
                self._checked[slot] = generation
            else:
                self._discard(slot, generation)
        there &= self._checked.take(slots) == generations

    def _discard(self, slot: int, generation: int) -> None:
        """Forget a slot whose bytes are wrong, unless they are wrong because they are being replaced."""
        with self._writing, self._locks.exclusive(_CHANGE):
            if self._table.generation[slot] == generation:
                self._table.block_of_slot[slot] = 0
                self._table.last_used[slot] = 0

    def _least_recently_used(self) -> int:
        """The slot to overwrite. The oldest are looked up many at a time, since that reads the whole table.

        One that was not used since is still older than all that were not looked up.
        """
        last_used = self._table.last_used
        while True:
            if not self._oldest:
                count = min(_OLDEST_AT_ONCE, -(-self.num_slots // 8))
                times = last_used.copy()
                slots = np.argpartition(times, count - 1)[:count]
                slots = slots[times[slots].argsort(kind="stable")]
                self._oldest.extend(zip(slots.tolist(), times[slots].tolist(), strict=True))
            slot, time_of_use = self._oldest.popleft()
            if last_used[slot] == time_of_use:
                return slot

    def _write(self, content: bytes, position: int) -> None:
        # Never through the map: on a full disk that would kill the process.
        rest = memoryview(content)
        while rest:
            written = os.pwrite(self._data_file, rest, position)
            rest, position = rest[written:], position + written

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the cache folder {self.folder} cannot be used: {error.strerror}. Free space on that disk, "
                "or choose another folder (cache=…, BRAIDSTREAM_CACHE) or a smaller cache_bytes."
            ) from error


def _folder_of(fingerprint: str, folder: Path, grid: BlockGrid) -> Path:
    return folder / f"{fingerprint[:FINGERPRINT_DIGITS]}-{grid.block_bytes}"


def _slots_for(cache_bytes: int, slot_bytes: int, num_blocks: int) -> int:
    """Slots that fit; no more than the corpus has blocks."""
    least = min(MIN_BLOCKS, num_blocks)
    if cache_bytes // slot_bytes < least:
        raise StorageError(
            f"cache_bytes={cache_bytes:,} is less than {least} blocks of {slot_bytes:,} bytes; give the "
            f"cache {least * slot_bytes:,} bytes or more."
        )
    return min(cache_bytes // slot_bytes, num_blocks)
