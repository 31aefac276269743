"""Blocks as arithmetic over shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.manifest import ShardEntry
from pipeline.storage.blocks import BlockGrid


@given(data=st.data())
@pytest.mark.parametrize("num_blocks", [3, 2**16, 2**16 + 1, 2**33])
def test_blocks_come_once_and_as_they_are_first_needed(
    num_blocks: int, data: st.DataObject
) -> None:
    shard = ShardEntry(
        file="a", bytes=num_blocks, sha256="0" * 64, samples=1, data_offset=0, data_bytes=num_blocks
    )
    grid = BlockGrid([shard], block_bytes=1)
    assert grid.num_blocks == num_blocks
    # Some that differ by a multiple of 2**16, and would be one in 16 bits.
    near = st.integers(0, min(2, num_blocks - 1))
    block = st.one_of(st.integers(0, num_blocks - 1), near, near.map(lambda n: num_blocks - 1 - n))
    needed = data.draw(st.lists(block, max_size=40))
    found = grid.as_first_needed(np.array(needed, dtype=np.int64))
    assert found.tolist() == list(dict.fromkeys(needed))
