"""Samples by position, where their lengths vary: MDS records and the groups of tar shards.

Where a sample lies is said by a row of the corpus's array of extents instead of by arithmetic; the rest is as
in shards.py. A sample may straddle blocks: it is read in pieces and joined.
"""

from __future__ import annotations

import io
import tarfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import FileEntry, Manifest
from pipeline.errors import CorpusError
from pipeline.samples.mds_records import Decode, record_decoder
from pipeline.samples.tar_groups import decode_group
from pipeline.storage.blocks import BlockGrid, Ints
from pipeline.storage.storage import Blocks, Storage

_LONGEST_HEADER = 1024


class RecordReader:
    """Random access to the samples of a corpus of records.

    A sample is a dict: of MDS records, column to value; of tar groups, extension to bytes, and `__key__`.
    """

    def __init__(
        self,
        storage: Storage,
        blocks: Blocks | None,
        grid: BlockGrid,
        manifest: Manifest,
        *,
        allow_pickle: bool = False,
    ) -> None:
        """Open the extents.

        Args:
            storage: Reads the corpus's files; local shards are mapped through it.
            blocks: Reads the shards where they are not local; None where they are.
            grid: The blocks of the corpus.
            manifest: Describes the corpus; must have `records`.
            allow_pickle: Unpickle columns of the MDS encoding `pkl`. Unpickling runs whatever code the
                data names.

        Raises:
            CorpusError: A column's encoding is unknown, or `pkl` without leave; or the extents are damaged.
        """
        assert manifest.records is not None, "a token corpus is read by shards.py"
        self._storage = storage
        self._blocks = blocks
        self._grid = grid
        self._decode: Decode = (
            record_decoder(manifest.records.columns, allow_pickle=allow_pickle)
            if manifest.shard_format == "mds"
            else decode_group
        )
        self._starts = np.cumsum([0, *(shard.samples for shard in grid.shards)])
        self._data_begin = np.array([shard.data_offset for shard in grid.shards], dtype=np.int64)
        self._data_bytes = np.array([shard.data_bytes for shard in grid.shards], dtype=np.int64)
        self._extents = _map_extents(storage, manifest.records.extents, manifest.num_samples)
        self._maps: dict[int, NDArray[np.uint8]] = {}

    def handles(self, positions: Ints) -> Ints:
        """See `pipeline.samples.shards.SampleReader`: here a handle is the position."""
        return positions

    def copy(self, positions: Ints) -> list[Any]:
        """The samples at `positions` (n,), decoded, in that order.

        Raises:
            CorpusError: A shard is missing, or a sample does not decode.
            StorageError: A block cannot be had.
        """
        shard, begin, length = self._locate(positions)
        contents = (
            self._read_mapped(shard, begin, length)
            if self._blocks is None
            else self._read_blocks(self._blocks, shard, begin, length)
        )
        samples = []
        for content, position, number in zip(contents, positions, shard, strict=True):
            try:
                samples.append(self._decode(content))
            except (ValueError, LookupError, ArithmeticError, OSError, tarfile.TarError) as error:
                raise CorpusError(
                    f"sample {position:,}, in {self._grid.shards[number].file}, does not decode "
                    f"({type(error).__name__}: {error}). Either the shard is damaged, or its columns are not "
                    "what the manifest says: fetch or import the corpus again."
                ) from error
        return samples

    def read_ahead(self, positions: Ints) -> None:
        """These samples (m,) come next, in this order; takes the place of an earlier list."""
        if self._blocks is None:
            return
        shard, begin, length = self._locate(positions)
        first, _ = self._grid.locate(shard, begin)
        last, _ = self._grid.locate(shard, begin + length - 1)
        blocks, _ = _runs(first, last - first + 1)
        self._blocks.read_ahead(self._grid.as_first_needed(blocks))

    def _locate(self, positions: Ints) -> tuple[Ints, Ints, Ints]:
        """Shard, first byte counted from the shard's data_offset, and length; all (n,)."""
        shard = self._starts.searchsorted(positions, side="right") - 1
        first, length = self._extents[positions].astype(np.int64).T
        begin = first - self._data_begin[shard]
        outside = (begin < 0) | (length < 1) | (begin + length > self._data_bytes[shard])
        if outside.any():
            i = int(np.flatnonzero(outside)[0])
            raise CorpusError(
                f"sample {positions[i]:,} is said to take {length[i]:,} bytes from byte {first[i]:,} of "
                f"{self._grid.shards[shard[i]].file}, outside its samples: the extents are damaged. Fetch or "
                "import the corpus again."
            )
        return shard, begin, length

    def _read_mapped(self, shard: Ints, begin: Ints, length: Ints) -> list[bytes]:
        for number in np.unique(shard).tolist():
            if number not in self._maps:
                self._maps[number] = self._storage.map(self._grid.shards[number])
        first = begin + self._data_begin[shard]
        places = zip(shard.tolist(), first.tolist(), (first + length).tolist(), strict=True)
        return [self._maps[number][start:end].tobytes() for number, start, end in places]

    def _read_blocks(self, blocks: Blocks, shard: Ints, begin: Ints, length: Ints) -> list[bytes]:
        first, _ = self._grid.locate(shard, begin)
        last, _ = self._grid.locate(shard, begin + length - 1)
        count = last - first + 1
        block, sample = _runs(first, count)
        # A piece ends where its block or its sample ends, counted here from the start of the sample's block.
        block_bytes = self._grid.block_bytes
        number_in_sample = block - first[sample]
        in_first_block = begin % block_bytes
        start = np.maximum(number_in_sample * block_bytes, in_first_block[sample])
        stop = np.minimum((number_in_sample + 1) * block_bytes, (in_first_block + length)[sample])
        pieces = blocks.read(block, start - number_in_sample * block_bytes, stop - start)
        bounds = np.concatenate([[0], np.cumsum(count)]).tolist()
        return [b"".join(pieces[bounds[i] : bounds[i + 1]]) for i in range(len(shard))]


def _runs(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """The numbers first[i] .. first[i] + count[i] - 1 for every i, one after the other, and the i of each."""
    owner = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return first[owner] + within, owner


def _map_extents(storage: Storage, entry: FileEntry, num_samples: int) -> NDArray[np.uint64]:
    """Map an .npy file of shape (num_samples, 2), uint64; nothing in it is unpickled."""
    content = storage.map(entry)
    header = io.BytesIO(content[:_LONGEST_HEADER].tobytes())
    npy: Any = np.lib.format
    try:
        version = npy.read_magic(header)
        if version != (1, 0):
            raise ValueError(f"version {version} of the .npy format")
        shape, column_major, dtype = npy.read_array_header_1_0(header)
        if dtype != np.dtype("<u8") or column_major or shape != (num_samples, 2):
            raise ValueError(f"{dtype} of shape {shape}, not uint64 of shape {(num_samples, 2)}")
        extents: NDArray[np.uint64] = content[header.tell() :].view("<u8").reshape(num_samples, 2)
        return extents
    except ValueError as error:
        raise CorpusError(
            f"{entry.file} is not the array of extents that the manifest describes ({error}). Fetch or "
            "import the corpus again."
        ) from error
