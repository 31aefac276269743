from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clustering.embedding.token_batches import padded, token_batches


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 200))
def test_every_text_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    counts = np.array(lengths, dtype=np.int64)
    batches = token_batches(counts, budget)
    assert sorted(n for batch in batches for n in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * counts[batch].max() <= budget
    longest = [int(counts[batch].max()) for batch in batches]
    assert longest == sorted(longest, reverse=True), "so that what runs first needs most memory"


def test_padding_stands_where_the_model_wants_it() -> None:
    tokens = [np.array([5, 6, 7]), np.array([8])]
    ids, mask = padded(tokens, pad_id=1, left=False)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = padded(tokens, pad_id=1, left=True)
    assert ids.tolist() == [[5, 6, 7], [1, 1, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
