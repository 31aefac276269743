"""Tokens of the documents, part by part; they outlive the tree, so another tree costs no tokenising.

tokenizer/tokenizer.json, tokenizer/special.json    the tokenizer of the corpus
tokenize/part-00000.arrow                           tokens of each kept document of part 0
    tokens: large_list<uint16|uint32>
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.engines.engine import Device
from clustering.shards.packing import Tokens
from clustering.shards.tokenization import CorpusTokenizer
from clustering.work.work_store import WorkStore

CHUNK_TEXTS = 1_024
"""Documents tokenised at a time."""


def tokens_name(part: int) -> str:
    """Name of a part's tokens in the work store."""
    return f"tokenize/part-{part:05}.arrow"


@dataclass(frozen=True, kw_only=True)
class TokenizeTask:
    """Tokenises the kept documents of a part."""

    store: WorkStore
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        """See `UnitTask`."""
        import pyarrow as pa

        documents = DocumentParts(self.store)
        kept = DocumentRoles(self.store, documents.part_offsets).kept(unit)
        texts = documents.part(unit)["text"].take(kept)
        self.store.publish_table(
            tokens_name(unit),
            pa.table({"tokens": token_lists(texts, self._tokenizer)}),
        )
        return len(kept)

    @cached_property
    def _tokenizer(self) -> CorpusTokenizer:
        return CorpusTokenizer.load(self.store)


def token_lists(texts: Any, tokenizer: CorpusTokenizer) -> Any:
    """Tokenise an Arrow array of n texts: an Arrow large_list of n lists."""
    import pyarrow as pa

    tokens = [np.empty(0, dtype=tokenizer.dtype)]
    lengths = [np.empty(0, dtype=np.int64)]
    for begin in range(0, len(texts), CHUNK_TEXTS):
        chunk_tokens, chunk_lengths = tokenizer.encode(texts.slice(begin, CHUNK_TEXTS).to_pylist())
        tokens.append(chunk_tokens)
        lengths.append(chunk_lengths)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(tokens)))


def flat_tokens(lists: Any) -> tuple[Tokens, NDArray[np.int64], NDArray[np.int64]]:
    """The tokens behind an Arrow large_list of n lists, and int64 (n,) starts and lengths in them."""
    array = lists.combine_chunks() if hasattr(lists, "combine_chunks") else lists
    offsets = array.offsets.to_numpy().astype(np.int64, copy=False)
    return array.values.to_numpy(), offsets[:-1], np.diff(offsets)
