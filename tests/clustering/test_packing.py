from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clustering.shards.packing import cut_blocks, join_documents, leaf_of_blocks, leaf_offsets_of

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


@given(leaf_sizes, lengths)
def test_a_block_belongs_to_the_leaf_with_most_of_its_tokens(
    leaf_tokens: list[int], length: int
) -> None:
    owner = leaf_of_blocks(np.array(leaf_tokens), length)
    assert owner.tolist() == owner_by_counting(leaf_tokens, length)
    assert (np.diff(owner) >= 0).all()


@given(leaf_sizes, lengths)
def test_leaves_own_contiguous_ranges_that_cover_all_blocks(
    leaf_tokens: list[int], length: int
) -> None:
    owner = leaf_of_blocks(np.array(leaf_tokens), length)
    offsets = leaf_offsets_of(owner, len(leaf_tokens))
    assert offsets[0] == 0
    assert offsets[-1] == len(owner) == -(-sum(leaf_tokens) // length)
    for leaf in range(len(leaf_tokens)):
        assert (owner[offsets[leaf] : offsets[leaf + 1]] == leaf).all()


def test_ties_go_to_the_lower_leaf() -> None:
    assert leaf_of_blocks(np.array([2, 2, 4]), 4).tolist() == [0, 2]


def test_a_leaf_without_tokens_owns_nothing() -> None:
    assert leaf_of_blocks(np.array([0, 3, 0, 5, 0]), 4).tolist() == [1, 3]


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
