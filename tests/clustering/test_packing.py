from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clustering.shards.packing import cut_blocks, join_documents, leaf_offsets_of

SEPARATOR, PAD = 60_000, 60_001
leaf_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12)
lengths = st.integers(1, 17)


def owner_by_counting(leaf_tokens: list[int], length: int) -> list[int]:
    """The definition, token by token."""
    stream = np.repeat(np.arange(len(leaf_tokens)), leaf_tokens)
    return [
        int(np.bincount(stream[begin : begin + length]).argmax())
        for begin in range(0, len(stream), length)
    ]


def owners(leaf_tokens: list[int], length: int) -> list[int]:
    offsets = leaf_offsets_of(np.array(leaf_tokens, dtype=np.int64), length)
    assert offsets[0] == 0
    owned = np.repeat(np.arange(len(leaf_tokens)), np.diff(offsets))  # an error where it descends
    return [int(leaf) for leaf in owned]


@given(leaf_sizes, lengths)
def test_a_block_belongs_to_the_leaf_with_most_of_its_tokens(
    leaf_tokens: list[int], length: int
) -> None:
    assert owners(leaf_tokens, length) == owner_by_counting(leaf_tokens, length)


def test_ties_go_to_the_lower_leaf() -> None:
    assert owners([2, 2, 4], 4) == [0, 2]


def test_a_leaf_without_tokens_owns_nothing() -> None:
    assert owners([0, 3, 0, 5, 0], 4) == [1, 3]
    assert owners([0, 0], 4) == []


def test_leaves_of_many_blocks_take_no_memory_for_them() -> None:
    offsets = leaf_offsets_of(np.array([10**15, 1, 10**15]), 10)
    assert offsets.tolist() == [0, 10**14, 10**14, 2 * 10**14 + 1]


@given(
    documents=st.lists(st.lists(st.integers(0, 9), max_size=30), min_size=1, max_size=15),
    length=lengths,
    data=st.data(),
)
def test_packing_loses_nothing_keeps_order_and_pads_only_the_last_block(
    documents: list[list[int]], length: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(documents)))))
    chunk = data.draw(st.integers(1, len(documents)))
    sizes = np.array([len(document) for document in documents])
    tokens = np.array([token for document in documents for token in document], dtype=np.uint16)
    starts = np.cumsum(sizes) - sizes
    chunks = (
        join_documents(tokens, starts[part], sizes[part], SEPARATOR)
        for part in (order[begin : begin + chunk] for begin in range(0, len(order), chunk))
    )
    blocks = np.concatenate(list(cut_blocks(chunks, length, PAD)))
    expected = [token for number in order for token in [*documents[number], SEPARATOR]]
    padding = blocks.size - len(expected)
    assert 0 <= padding < length
    assert blocks.dtype == np.uint16
    assert blocks.reshape(-1).tolist() == expected + [PAD] * padding
