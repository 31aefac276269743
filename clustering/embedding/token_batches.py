"""Tokens of many texts to batches of like length, each bounded in tokens, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def token_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Cut n texts into batches, the longest texts first.

    Args:
        lengths: Tokens of each text, int64 (n,).
        budget: Tokens that a batch may have, padding counted; a longer text is a batch of its own.

    Returns:
        The numbers of the texts of each batch, int64 (batch,), longest first. Only `lengths` and `budget`
        decide them.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    begin = 0
    while begin < len(order):
        longest = max(1, int(lengths[order[begin]]))
        batches.append(order[begin : begin + max(1, budget // longest)])
        begin += len(batches[-1])
    return batches


def padded(
    tokens: Sequence[NDArray[np.int64]], *, pad_id: int, left: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pad token lists to the longest of them.

    Args:
        tokens: n token lists, int64 (length,).
        pad_id: Token to pad with.
        left: Whether padding comes before the text; models that read the last token are made so.

    Returns:
        Tokens and attention mask (1 for text, 0 for padding), both int64 (n, longest).
    """
    longest = max(len(text) for text in tokens)
    ids = np.full((len(tokens), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(tokens), longest), dtype=np.int64)
    for row, text in enumerate(tokens):
        place = slice(longest - len(text), longest) if left else slice(0, len(text))
        ids[row, place] = text
        mask[row, place] = 1
    return ids, mask
