"""One pass over one shard that someone else wrote: its checksums, and where its samples lie."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import SampleSchema
from pipeline.corpus.places import Place
from pipeline.errors import CorpusError
from pipeline.importing.found_domains import FoundShard
from pipeline.samples.tar_groups import RECORD_BYTES, find_groups
from pipeline.whole_files import write_whole

PART_BYTES = 2**23


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSurvey:
    """What an import keeps of a shard."""

    sha256: str
    data_offset: int
    data_bytes: int
    checksums: NDArray[np.uint64]
    """Shape (num_blocks,): XXH3-64 of each block."""
    extents: NDArray[np.uint64]
    """Shape (samples, 2): each sample's first byte in the shard, and its length."""
    highest_token: int
    """Of token corpora; -1 for records."""

    def save(self, path: Path) -> None:
        """Keep it for a later run."""
        file = io.BytesIO()
        np.savez(file, **{name: np.asarray(getattr(self, name)) for name in self.__slots__})
        write_whole(path, file.getvalue())

    @staticmethod
    def load(path: Path) -> ShardSurvey:
        """What an earlier run has kept."""
        with np.load(path, allow_pickle=False) as kept:
            return ShardSurvey(
                sha256=str(kept["sha256"]),
                data_offset=int(kept["data_offset"]),
                data_bytes=int(kept["data_bytes"]),
                checksums=kept["checksums"],
                extents=kept["extents"],
                highest_token=int(kept["highest_token"]),
            )


def survey_shard(
    place: Place, shard: FoundShard, *, schema: SampleSchema | None, block_bytes: int
) -> ShardSurvey:
    """Read a shard from front to back, a few MiB at a time.

    Args:
        place: Holds the shard.
        shard: The shard; one with a number of samples is MDS, one without is a tar.
        schema: Of token corpora, whose samples must lie at equal distances.
        block_bytes: Length of a block.

    Raises:
        CorpusError: The shard is not what its index says, or no tar.
    """
    if shard.samples is None:
        return _survey_tar(place, shard, block_bytes)
    extents = _mds_extents(place, shard, shard.samples)
    lengths = extents[:, 1]
    if schema is not None and (lengths != schema.stride_bytes).any():
        raise _damaged(place, shard, "its samples differ in length, though its column says one")
    pass_ = _Pass(place, shard, int(extents[0, 0]), block_bytes, schema)
    pass_.finish()
    return pass_.survey(extents)


def _survey_tar(place: Place, shard: FoundShard, block_bytes: int) -> ShardSurvey:
    pass_ = _Pass(place, shard, 0, block_bytes, None)
    try:
        groups = [(group.begin, group.end) for group in find_groups(cast(IO[bytes], pass_))]
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damaged(place, shard, f"{error}") from error
    pass_.finish()
    bounds = np.array(groups, dtype=np.uint64).reshape(-1, 2)
    if len(groups) and groups[-1][1] + RECORD_BYTES > shard.bytes:
        raise _damaged(place, shard, "it has no end mark, as if it had been cut off")
    return pass_.survey(np.stack([bounds[:, 0], bounds[:, 1] - bounds[:, 0]], axis=1))


def _mds_extents(place: Place, shard: FoundShard, samples: int) -> NDArray[np.uint64]:
    """Read a shard's own table of offsets."""
    head_bytes = 4 * (samples + 2)
    if samples < 1 or head_bytes > shard.bytes:
        raise _damaged(place, shard, f"{shard.bytes:,} bytes do not hold {samples:,} samples")
    head = np.frombuffer(place.read_range(shard.file, 0, head_bytes), "<u4").astype(np.int64)
    offsets, lengths = head[1:], np.diff(head[1:])
    if head[0] != samples:
        raise _damaged(place, shard, f"it says {head[0]:,} samples, its index {samples:,}")
    if offsets[0] < head_bytes or (lengths < 1).any() or offsets[-1] != shard.bytes:
        raise _damaged(place, shard, "its table of offsets does not fit its length")
    extents: NDArray[np.uint64] = np.stack([offsets[:-1], lengths], axis=1).astype(np.uint64)
    return extents


def _damaged(place: Place, shard: FoundShard, found: str) -> CorpusError:
    return CorpusError(
        f"{place.address(shard.file)} cannot be imported: {found}. Copy or write it again."
    )


def check_sha256(place: Place, shard: FoundShard, found: str) -> None:
    """Raise `CorpusError` where the shard's index says another sha256 (hex) than `found`."""
    expected = shard.sha256
    if expected is not None and found != expected:
        raise _damaged(
            place, shard, f"its sha256 is {found[:16]}…, its index says {expected[:16]}…"
        )


class _Pass:
    """Reads a shard once and hashes what goes by; `read` makes it a file for tarfile."""

    def __init__(
        self,
        place: Place,
        shard: FoundShard,
        data_offset: int,
        block_bytes: int,
        schema: SampleSchema | None,
    ) -> None:
        from xxhash import xxh3_64

        self._place = place
        self._shard = shard
        self._data_offset = data_offset
        self._block_bytes = block_bytes
        self._dtype = None if schema is None else np.dtype(schema.dtype).newbyteorder("<")
        self._position = 0
        self._part = io.BytesIO()
        self._sha256 = hashlib.sha256()
        self._block: Any = xxh3_64()
        self._in_block = 0
        self._checksums: list[int] = []
        self._highest_token = -1

    def read(self, size: int) -> bytes:
        """The next bytes, `size` of them or fewer; none at the end."""
        content = self._part.read(size)
        if not content and self._position < self._shard.bytes:
            self._part = io.BytesIO(self._next_part())
            content = self._part.read(size)
        return content

    def finish(self) -> None:
        """Read what is left."""
        while self._position < self._shard.bytes:
            self._next_part()
        if self._in_block:
            self._end_block()
        check_sha256(self._place, self._shard, self._sha256.hexdigest())

    def survey(self, extents: NDArray[np.uint64]) -> ShardSurvey:
        """What was seen on the way."""
        return ShardSurvey(
            sha256=self._sha256.hexdigest(),
            data_offset=self._data_offset,
            data_bytes=self._shard.bytes - self._data_offset,
            checksums=np.array(self._checksums, dtype=np.uint64),
            extents=extents,
            highest_token=self._highest_token,
        )

    def _next_part(self) -> bytes:
        # What precedes the data is a part of its own, so that the others hold whole tokens.
        start = self._position
        in_head = start < self._data_offset
        end = self._data_offset if in_head else min(start + PART_BYTES, self._shard.bytes)
        content = self._place.read_range(self._shard.file, start, end)
        self._position = end
        self._sha256.update(content)
        if not in_head:
            self._count_blocks(content)
            if self._dtype is not None:
                highest = int(np.frombuffer(content, self._dtype).max())
                self._highest_token = max(self._highest_token, highest)
        return content

    def _count_blocks(self, content: bytes) -> None:
        view, begin = memoryview(content), 0
        while begin < len(view):
            end = min(begin + self._block_bytes - self._in_block, len(view))
            self._block.update(view[begin:end])
            self._in_block += end - begin
            begin = end
            if self._in_block == self._block_bytes:
                self._end_block()

    def _end_block(self) -> None:
        self._checksums.append(self._block.intdigest())
        self._block.reset()
        self._in_block = 0
