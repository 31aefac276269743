"""Tokens of all documents on disk, and the stream of them in any order.

FOLDER/tokens.bin      all tokens back to back, uint16 or uint32, little endian
FOLDER/offsets.npy     int64 (n+1,): where each document begins
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents import DocumentStore
from clustering.packing import Tokens, join_documents
from clustering.tokenization import CorpusTokenizer

CHUNK_TOKENS = 2**22
"""Tokens gathered at a time."""
CHUNK_TEXTS = 1_024
"""Documents tokenised at a time."""


class TokenStore:
    """Read access to a folder that `tokenize_documents` wrote."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.offsets: NDArray[np.int64] = np.load(folder / "offsets.npy")
        path = folder / "tokens.bin"
        self.tokens: NDArray[Any] = (
            np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
            if path.stat().st_size
            else np.empty(0, dtype=dtype)
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 (n,): tokens per document, without its separator."""
        return np.diff(self.offsets)

    def stream(self, documents: NDArray[np.int64], separator: int) -> Iterator[Tokens]:
        """Tokens of the documents int64 (n,) in that order, each followed by the separator, in chunks."""
        lengths = self.lengths[documents]
        chunk_of = np.cumsum(lengths + 1) // CHUNK_TOKENS
        bounds = np.flatnonzero(np.diff(chunk_of, prepend=-1, append=-1))
        for begin, end in pairwise(bounds):
            chunk = slice(int(begin), int(end))
            starts = self.offsets[documents[chunk]]
            yield join_documents(self.tokens, starts, lengths[chunk], separator)


def tokenize_documents(
    documents: DocumentStore,
    tokenizer: CorpusTokenizer,
    folder: Path,
    advance: Callable[[int], None] = lambda documents: None,
) -> None:
    """Tokenise every document of the store; a `TokenStore` reads the result."""
    lengths: list[NDArray[np.int64]] = []
    with (folder / "tokens.bin").open("wb") as file:
        for part in range(documents.num_parts):
            texts = documents.part_texts(part)
            for begin in range(0, len(texts), CHUNK_TEXTS):
                chunk = texts[begin : begin + CHUNK_TEXTS]
                ids, lengths_of_chunk = tokenizer.encode(chunk)
                file.write(ids.astype(ids.dtype.newbyteorder("<"), copy=False).tobytes())
                lengths.append(lengths_of_chunk)
                advance(len(chunk))
    offsets = np.zeros(len(documents) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([np.empty(0, dtype=np.int64), *lengths]), out=offsets[1:])
    np.save(folder / "offsets.npy", offsets)
