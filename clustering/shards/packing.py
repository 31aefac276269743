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


def leaf_of_blocks(leaf_tokens: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The leaf that owns each block.

    Args:
        leaf_tokens: int64 (num_leaves,): tokens of each leaf, separators included; zeros are fine.
        length: Tokens per block.

    Returns:
        int64 (num_blocks,), non-decreasing, with num_blocks = ceil(sum(leaf_tokens) / length).
    """
    leaf_ends = np.cumsum(leaf_tokens)
    total = int(leaf_ends[-1]) if len(leaf_ends) else 0
    # Cut the stream wherever a block or a leaf begins: each piece lies in one block and one leaf.
    cuts = np.union1d(np.arange(0, total, length), leaf_ends[leaf_ends < total])
    if total == 0:
        return np.empty(0, dtype=np.int64)
    pieces = np.diff(np.append(cuts, total))
    block = cuts // length
    leaf = np.searchsorted(leaf_ends, cuts, side="right")
    best_first = np.lexsort((leaf, -pieces, block))
    first_of_block = np.flatnonzero(np.diff(block[best_first], prepend=-1))
    owner: NDArray[np.int64] = leaf[best_first][first_of_block].astype(np.int64)
    return owner


def leaf_offsets_of(block_leaf: NDArray[np.int64], num_leaves: int) -> NDArray[np.int64]:
    """Where each leaf's blocks begin: int64 (num_leaves+1,) from the non-decreasing leaf of each block."""
    return np.searchsorted(block_leaf, np.arange(num_leaves + 1), side="left").astype(np.int64)


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
