"""Documents to blocks of fixed length: pure and vectorised, nothing lost.

Documents are joined in leaf order, each followed by the separator; the stream is cut every `length` tokens.
A block belongs to the leaf that holds most of its tokens (ties: the lower leaf). Leaves ascend along
the stream, so blocks do too, and a leaf owns a contiguous range of blocks. Only the last block of
all is padded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[Any]
"""uint16 or uint32."""


def leaf_offsets_of(leaf_tokens: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where each leaf's blocks begin.

    Takes memory for leaves, not for blocks: a block without a border between leaves in it has no question.

    Args:
        leaf_tokens: int64 (num_leaves,): tokens of each leaf, separators included; zeros are fine.
        length: Tokens per block.

    Returns:
        int64 (num_leaves+1,), non-decreasing, from 0 to ceil(sum(leaf_tokens) / length): leaf l owns the
        blocks from its offset up to the next one's.
    """
    # The first token of each leaf, and the end.
    borders = np.concatenate([[0], np.cumsum(leaf_tokens)])
    total = int(borders[-1])
    starts = borders[borders < total]
    offsets = np.full(len(borders), -(-total // length), dtype=np.int64)
    if not len(starts):
        return offsets
    # Cut the blocks with a border in them where they begin and at their borders.
    begun_in = starts // length
    blocks, of_start = np.unique(begun_in, return_inverse=True)
    cuts = np.union1d(blocks * length, starts)
    block = cuts // length
    ends = np.minimum(np.append(cuts[1:], total), (block + 1) * length)
    leaf = np.searchsorted(borders[1:], cuts, side="right")
    best_first = np.lexsort((leaf, cuts - ends, block))
    owner = leaf[best_first][np.flatnonzero(np.diff(block[best_first], prepend=-1))]
    offsets[: len(starts)] = begun_in + (owner[of_start] < np.arange(len(starts)))
    return offsets


def join_documents(
    tokens: Tokens, starts: NDArray[np.int64], lengths: NDArray[np.int64], separator: int
) -> Tokens:
    """Concatenate documents out of one long array, each followed by the separator.

    Args:
        tokens: All tokens of all documents (may be memory-mapped).
        starts: int64 (n,): where each wanted document begins in `tokens`, in output order.
        lengths: int64 (n,): its number of tokens.
        separator: Token put after each document.

    Returns:
        The joined tokens, shape (sum(lengths) + n,), of the dtype of `tokens`.
    """
    ends = np.cumsum(lengths + 1)
    total = int(ends[-1]) if len(ends) else 0
    begins = ends - (lengths + 1)
    source = np.repeat(starts - begins, lengths + 1) + np.arange(total)
    if total:
        source[ends - 1] = 0  # overwritten below; keeps the gather inside `tokens`
    joined = tokens[source] if len(tokens) else np.empty(total, dtype=tokens.dtype)
    if total:
        joined[ends - 1] = separator
    return joined


def cut_blocks(chunks: Iterable[Tokens], length: int, pad: int) -> Iterator[Tokens]:
    """Cut a stream of tokens into blocks.

    Args:
        chunks: Pieces of the stream, any sizes, one dtype.
        length: Tokens per block.
        pad: Token that fills the last block.

    Yields:
        Arrays (n, length), n >= 1: all whole blocks that a chunk completes; the last is padded.
    """
    rest: Tokens | None = None
    for chunk in chunks:
        joined = chunk if rest is None else np.concatenate([rest, chunk])
        whole = len(joined) // length * length
        if whole:
            yield joined[:whole].reshape(-1, length)
        rest = joined[whole:]
    if rest is not None and len(rest):
        last = np.full((1, length), pad, dtype=rest.dtype)
        last[0, : len(rest)] = rest
        yield last
