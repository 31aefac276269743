"""A corpus in an object store: its files, kept on disk, and its blocks, fetched through the block cache."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import FileEntry
from pipeline.errors import StorageError
from pipeline.storage.block_cache import BlockCache
from pipeline.storage.blocks import BlockGrid, Ints, block_checksum
from pipeline.storage.byte_locks import ByteLocks
from pipeline.storage.cache_settings import CONNECTIONS, CacheSettings
from pipeline.storage.fetcher import Fetcher
from pipeline.storage.storage import FetchStatistics
from pipeline.stores.object_store import PART_BYTES, ObjectStore

_DOWNLOADS = 3
_PATIENCE_SECONDS = 0.005
_open_blocks: weakref.WeakSet[CachedBlocks] = weakref.WeakSet()


class RemoteStorage:
    """The files that a manifest names, but for the shards: each is downloaded once per machine.

    Files are kept under the checksum that the manifest has for them, so corpora share what is equal, and are
    checked whenever they are opened.
    """

    def __init__(self, store: ObjectStore, cache_folder: Path) -> None:
        self._store = store
        self._folder = cache_folder / "files"

    def read(self, entry: FileEntry) -> bytes:
        """Content of a file; `StorageError` when it cannot be had."""
        return self.map(entry).tobytes()

    def map(self, entry: FileEntry) -> NDArray[np.uint8]:
        """Content of a file as a read-only byte array of shape (entry.bytes,)."""
        path = self._folder / entry.sha256
        try:
            content = _intact(path, entry)
            if content is None:
                content = self._fetched(entry, path)
        except OSError as error:
            raise StorageError(
                f"{entry.file} cannot be kept in {self._folder}: {error.strerror}. Free space on that disk, "
                "or choose another cache folder (cache=…, BRAIDSTREAM_CACHE)."
            ) from error
        if content is None:
            raise StorageError(
                f"{self._store.url}/{entry.file}, bytes 0 to {entry.bytes:,}: expected sha256 "
                f"{entry.sha256[:16]}…, found another one in each of {_DOWNLOADS} downloads. The corpus was "
                "damaged or replaced: push it again."
            )
        return content

    def _fetched(self, entry: FileEntry, path: Path) -> NDArray[np.uint8] | None:
        """Download the file, unless another process has just done so; None when it is never right."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = int(entry.sha256[:15], 16)
        with closing(ByteLocks(self._folder / "lock")) as locks, locks.exclusive(number):
            content = _intact(path, entry)
            for _ in range(_DOWNLOADS):
                if content is None:
                    self._download(entry, path)
                    content = _intact(path, entry)
            return content

    def _download(self, entry: FileEntry, path: Path) -> None:
        """Write the parts side by side into another file, renamed when all are there."""
        partial = path.with_suffix(".partial")
        check = _check_of_file(entry) if entry.bytes <= PART_BYTES else None
        with partial.open("wb") as file:

            def load(part: int, urgent: bool) -> None:
                start = part * PART_BYTES
                end = min(start + PART_BYTES, entry.bytes)
                content = self._store.read_range(entry.file, start, end, check=check)
                os.pwrite(file.fileno(), content, start)

            parts = np.arange(-(-entry.bytes // PART_BYTES))
            with Fetcher(load, connections=CONNECTIONS).fetch(parts) as arriving:
                deque(arriving, maxlen=0)
        partial.replace(path)


class _Session(NamedTuple):
    """What a process opens when it reads its first block."""

    cache: BlockCache
    fetcher: Fetcher


class CachedBlocks:
    """The blocks of a corpus in an object store, by way of the cache that this machine's processes share.

    Implements `pipeline.storage.storage.Blocks`. Safe to use from several threads. Nothing is opened before
    the first read, and a forked process opens everything for itself.
    """

    def __init__(
        self,
        store: ObjectStore,
        grid: BlockGrid,
        checksums: NDArray[np.uint64],
        *,
        fingerprint: str,
        settings: CacheSettings,
        earlier: Mapping[str, int] | None = None,
    ) -> None:
        """Nothing is opened yet; see `BlockCache` for `checksums`, `fingerprint` and `earlier`."""
        self._store = store
        self._grid = grid
        self._checksums = checksums
        self._fingerprint = fingerprint
        self._settings = settings
        self._earlier = earlier
        self._begin()
        _open_blocks.add(self)

    def _begin(self) -> None:
        self._session: _Session | None = None
        self._lock = threading.Lock()
        self._overlapping: dict[int, NDArray[np.void]] = {}
        self._retried_before = self._store.retried
        self._blocks_needed = self._blocks_hit = self._bytes_fetched = self._bytes_used = 0
        self._wait_seconds = 0.0

    @property
    def statistics(self) -> FetchStatistics:
        """See `Blocks`."""
        with self._lock:
            return FetchStatistics(
                blocks_needed=self._blocks_needed,
                blocks_hit=self._blocks_hit,
                bytes_fetched=self._bytes_fetched,
                bytes_used=self._bytes_used,
                wait_seconds=self._wait_seconds,
                retries=self._store.retried - self._retried_before,
            )

    def copy(self, blocks: Ints, offsets: Ints, nbytes: int) -> NDArray[np.void]:
        """See `Blocks`. Copies what is there in one gather, and the rest as it comes."""
        cache = self._opened().cache
        pieces = self._pieces(nbytes)
        found = cache.find(blocks)
        if found.there.all():
            copied: NDArray[np.void] = pieces[found.slots * cache.slot_bytes + offsets]
            if cache.unchanged(found).all():
                cache.touch(found.slots)
                self._count(blocks, found.there, copied.nbytes)
                return copied
        copied = np.empty(len(blocks), dtype=pieces.dtype)

        def from_cache(rows: Ints, slots: Ints) -> None:
            copied[rows] = pieces[slots * cache.slot_bytes + offsets[rows]]

        def from_content(rows: Ints, content: bytes) -> None:
            copied[rows] = _overlapping(np.frombuffer(content, np.uint8), nbytes)[offsets[rows]]

        self._collect(blocks, from_cache, from_content)
        self._count(blocks, found.there, copied.nbytes)
        return copied

    def read(self, blocks: Ints, offsets: Ints, lengths: Ints) -> list[bytes]:
        """See `Blocks`."""
        cache = self._opened().cache
        first_there = cache.find(blocks).there
        pieces = [b""] * len(blocks)

        def from_cache(rows: Ints, slots: Ints) -> None:
            starts = slots * cache.slot_bytes + offsets[rows]
            for row, start, length in zip(rows, starts, lengths[rows], strict=True):
                pieces[row] = cache.slots[start : start + length].tobytes()

        def from_content(rows: Ints, content: bytes) -> None:
            for row, start, length in zip(rows, offsets[rows], lengths[rows], strict=True):
                pieces[row] = content[start : start + length]

        self._collect(blocks, from_cache, from_content)
        self._count(blocks, first_there, int(lengths.sum()))
        return pieces

    def read_ahead(self, blocks: Ints) -> None:
        """See `Blocks`. Only as many as half the cache holds; those that are there are kept for longer."""
        cache, fetcher = self._opened()
        soon = blocks[: max(1, cache.num_slots // 2)]
        found = cache.look_up(soon)
        cache.touch(found.slots[found.there])
        fetcher.read_ahead(soon[~found.there])

    def _collect(
        self,
        blocks: Ints,
        from_cache: Callable[[Ints, Ints], None],
        from_content: Callable[[Ints, bytes], None],
    ) -> None:
        """Serve every row of `blocks` from a slot of the cache or from the content of a fetched block.

        A fetched block is served from memory: however small the cache and whatever others evict from it, each
        fetch is progress.
        """
        cache, fetcher = self._opened()

        def take(rows: Ints) -> Ints:
            """Serve what the cache has; returns the other rows."""
            found = cache.find(blocks[rows])
            from_cache(rows[found.there], found.slots[found.there])
            served = found.there & cache.unchanged(found)
            cache.touch(found.slots[served])
            return rows[~served]

        rows = take(np.arange(len(blocks)))
        started = time.perf_counter()
        while rows.size:
            missing = blocks[rows]
            with fetcher.fetch(np.unique(missing)) as arriving:
                left = [np.empty(0, dtype=np.int64)]
                for block, content in arriving:
                    of_block = rows[missing == block]
                    if content is None:
                        left.append(take(of_block))
                    else:
                        from_content(of_block, content)
            rows = np.concatenate(left)
        with self._lock:
            self._wait_seconds += time.perf_counter() - started

    def _load(self, block: int, urgent: bool) -> bytes | None:
        """Get one block into the cache; runs in the fetcher's threads."""
        cache, fetcher = self._opened()
        began = time.monotonic()
        while not cache.claim(block):
            if not urgent or cache.holds(block) or fetcher.closing.wait(_PATIENCE_SECONDS):
                return None
            if time.monotonic() - began > self._store.retries.request_seconds:
                break  # whoever is at it may have been stopped, and twice is better than never
        try:
            if cache.holds(block):
                return None
            shard, begin, end = self._grid.extent(block)
            content = self._store.read_range(
                self._grid.shards[shard].file, begin, end, check=self._check_of(block)
            )
            cache.store(block, content)
            return content
        finally:
            cache.release(block)

    def _check_of(self, block: int) -> Callable[[bytes], str | None]:
        def check(content: bytes) -> str | None:
            with self._lock:
                self._bytes_fetched += len(content)
            expected, found = int(self._checksums[block]), block_checksum(content)
            if found == expected:
                return None
            return f"expected XXH3-64 {expected:016x} for block {block}, found {found:016x}"

        return check

    def _count(self, blocks: Ints, there: NDArray[np.bool_], nbytes: int) -> None:
        needed = _count_distinct(blocks)
        hit = needed if there.all() else _count_distinct(blocks[there])
        with self._lock:
            self._blocks_needed += needed
            self._blocks_hit += hit
            self._bytes_used += nbytes

    def _pieces(self, nbytes: int) -> NDArray[np.void]:
        """The whole cache as one array of pieces that begin at every byte."""
        if nbytes not in self._overlapping:
            self._overlapping[nbytes] = _overlapping(self._opened().cache.slots, nbytes)
        return self._overlapping[nbytes]

    def _opened(self) -> _Session:
        session = self._session
        if session is None:
            with self._lock:
                if self._session is None:
                    cache = BlockCache(
                        self._settings.folder,
                        self._grid,
                        self._checksums,
                        fingerprint=self._fingerprint,
                        cache_bytes=self._settings.bytes,
                        earlier=self._earlier,
                    )
                    fetcher = Fetcher(self._load, connections=self._settings.connections)
                    self._session = _Session(cache, fetcher)
                session = self._session
        return session


def _check_of_file(entry: FileEntry) -> Callable[[bytes], str | None]:
    """Compare content with the checksum that the manifest has for it."""

    def check(content: bytes) -> str | None:
        found = hashlib.sha256(content).hexdigest()
        if found == entry.sha256:
            return None
        return f"expected sha256 {entry.sha256[:16]}…, found {found[:16]}…"

    return check


def _intact(path: Path, entry: FileEntry) -> NDArray[np.uint8] | None:
    """The file as an array, or None when it is missing or is not what the manifest says."""
    try:
        content = np.fromfile(path, np.uint8) if not entry.bytes else np.memmap(path, mode="r")
    except (FileNotFoundError, ValueError):
        return None
    if hashlib.sha256(content.data).hexdigest() != entry.sha256:
        return None
    return np.asarray(content)


def _overlapping(memory: NDArray[np.uint8], nbytes: int) -> NDArray[np.void]:
    """Read `memory` as pieces of `nbytes` bytes that begin at every byte, without copying it."""
    count = max(0, len(memory) - nbytes + 1)
    return np.ndarray((count,), dtype=f"V{nbytes}", buffer=memory, strides=(1,))


def _count_distinct(values: Ints) -> int:
    """As len(np.unique(values)), in a quarter of the time."""
    ordered = np.sort(values)
    return min(len(values), 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1])))


def _begin_again() -> None:
    """In a forked child: threads, locks and counts are the parent's."""
    for blocks in list(_open_blocks):
        blocks._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)
