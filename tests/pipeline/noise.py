"""Blocks of noise that every process can compute for itself, and what processes do with a cache of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import ShardEntry
from pipeline.storage.block_cache import BlockCache
from pipeline.storage.blocks import BlockGrid, block_checksum

FINGERPRINT = "5eed" * 16
LATER_FINGERPRINT = "beef" * 16


class Noise:
    """Two shards of blocks of random bytes; the last block of each is shorter than the others."""

    def __init__(self, num_blocks: int, block_bytes: int) -> None:
        self.num_blocks = num_blocks
        self.block_bytes = block_bytes
        first = num_blocks // 2
        self.grid = BlockGrid(
            [self._shard("a", first), self._shard("b", num_blocks - first)], block_bytes
        )
        self.contents = [self._content(block) for block in range(num_blocks)]
        self.checksums = np.array([block_checksum(c) for c in self.contents], dtype=np.uint64)

    def open(self, folder: Path, num_slots: int) -> BlockCache:
        """A cache of these blocks in `folder`, as a process would open it."""
        slot_bytes = -(-self.block_bytes // 4096) * 4096
        return BlockCache(
            folder,
            self.grid,
            self.checksums,
            fingerprint=FINGERPRINT,
            cache_bytes=num_slots * slot_bytes,
        )

    def open_later(self, folder: Path) -> BlockCache:
        """A cache with room for all blocks, of a later version of the corpus, to which nothing was added."""
        return BlockCache(
            folder,
            self.grid,
            self.checksums,
            fingerprint=LATER_FINGERPRINT,
            cache_bytes=1 << 30,
            earlier={FINGERPRINT: self.num_blocks},
        )

    def read(self, cache: BlockCache, blocks: NDArray[np.int64]) -> list[bytes | None]:
        """What `cache` has of `blocks`; None for what it lacks or what was overwritten while read."""
        found = cache.find(blocks)
        starts = found.slots * cache.slot_bytes
        contents = [
            cache.slots[start : start + len(self.contents[block])].tobytes()
            for block, start in zip(blocks, starts, strict=True)
        ]
        good = found.there & cache.unchanged(found)
        return [content if ok else None for content, ok in zip(contents, good, strict=True)]

    def _shard(self, name: str, num_blocks: int) -> ShardEntry:
        data_bytes = num_blocks * self.block_bytes - 7
        return ShardEntry(
            file=name,
            bytes=100 + data_bytes,
            sha256="0" * 64,
            samples=num_blocks,
            data_offset=100,
            data_bytes=data_bytes,
        )

    def _content(self, block: int) -> bytes:
        extent = self.grid.extent(block)
        return np.random.default_rng(block).bytes(extent.end - extent.begin)


def hammer(folder: Path, log: Path, num_slots: int, seed: int, rounds: int) -> None:
    """Read random batches; fetch what is missing and note that in `log`. Dies if a byte is wrong."""
    noise = Noise(40, 20_000)
    cache = noise.open(folder, num_slots)
    rng = np.random.default_rng(seed)
    with log.open("a") as file:
        for _ in range(rounds):
            blocks = rng.integers(0, noise.num_blocks, 5)
            for block, content in zip(blocks, noise.read(cache, blocks), strict=True):
                assert content is None or content == noise.contents[block], f"block {block}"
                if content is None and cache.claim(int(block)):
                    if not cache.holds(int(block)):
                        file.write(f"{block}\n")
                        file.flush()
                        cache.store(int(block), noise.contents[block])
                    cache.release(int(block))


def store_without_end(folder: Path, num_slots: int, ready: Any) -> None:
    """Claim and store one random block after the other until somebody kills this process."""
    noise = Noise(12, 1 << 20)
    cache = noise.open(folder, num_slots)
    rng = np.random.default_rng()
    ready.set()
    while True:
        block = int(rng.integers(noise.num_blocks))
        if cache.claim(block):
            cache.store(block, noise.contents[block])
            cache.release(block)


def store_and_die(folder: Path, lines: int) -> None:
    """Store a block over an older one; `kill -9` oneself before the line `lines` of it is run."""
    noise = Noise(12, 20_000)
    cache = noise.open(folder, 8)
    assert cache.claim(11)
    with _dying(lines):
        cache.store(11, noise.contents[11])


def take_over_and_die(folder: Path, lines: int) -> None:
    """Open the cache of a later version; `kill -9` oneself before the line `lines` of that is run."""
    noise = Noise(12, 20_000)
    with _dying(lines):
        noise.open_later(folder)


@contextmanager
def _dying(lines: int) -> Iterator[None]:
    """Kill this process before it runs the line `lines` of the package."""
    count = 0

    def on_line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        if count > lines:
            os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, event: str, argument: object) -> Any:
        return on_line if "pipeline/storage" in frame.f_code.co_filename else None

    sys.settrace(on_call)
    yield
    sys.settrace(None)


def let_the_disk_fill_up(folder: Path, limit: int, errors: Any) -> None:
    """Store blocks in a process that may not make a file longer than `limit` bytes."""
    import resource

    noise = Noise(12, 20_000)
    cache = noise.open(folder, 12)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        for block, content in enumerate(noise.contents):
            cache.store(block, content)
    except Exception as error:
        errors.put((type(error).__name__, str(error)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    held = np.flatnonzero([cache.holds(block) for block in range(12)])
    assert noise.read(cache, held) == [noise.contents[block] for block in held]
    errors.put(held.tolist())
