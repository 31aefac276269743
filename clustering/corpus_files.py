"""The small files of a corpus folder, one function each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents import DocumentStore
from clustering.packing import Tokens, cut_blocks
from clustering.tokenization import CorpusTokenizer
from clustering.tokens import TokenStore
from clustering.tree import Tree
from pipeline.manifest import (
    MANIFEST_FILE,
    FileEntry,
    SampleSchema,
    TokenizerEntry,
    TreeEntry,
    file_entry,
)

FOLDERS = ("tree", "cards", "targets")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafOrder:
    """The documents of the corpus in the order in which the shards hold them."""

    documents: NDArray[np.int64]
    """int64 (n,): numbers in the document store."""
    leaf: NDArray[np.int64]
    """int64 (n,), non-decreasing."""
    distance: NDArray[np.float32]
    """float32 (n,): cosine distance to the leaf's centroid."""


def withdraw(corpus: Path) -> None:
    """Take back the manifest before a file that it names is touched: no manifest, no corpus."""
    (corpus / MANIFEST_FILE).unlink(missing_ok=True)


def clear_small_files(corpus: Path) -> None:
    """Remove what an earlier build wrote beside the shards; runs in the folder stay."""
    for name in FOLDERS:
        shutil.rmtree(corpus / name, ignore_errors=True)
        (corpus / name).mkdir(parents=True)
    (corpus / "heldout.npy").unlink(missing_ok=True)


def write_tree(corpus: Path, tree: Tree, leaf_offsets: NDArray[np.int64]) -> TreeEntry:
    """Write the arrays of the tree."""
    tree.save(corpus / "tree")
    np.save(corpus / "tree" / "leaf_offsets.npy", leaf_offsets)
    levels = range(1, len(tree.levels))
    return TreeEntry(
        levels=tree.levels,
        leaf_offsets=file_entry(corpus, "tree/leaf_offsets.npy"),
        split_order=file_entry(corpus, "tree/split_order.npy"),
        centroids=tuple(file_entry(corpus, f"tree/centroids.level{n}.npy") for n in levels),
        parents=tuple(file_entry(corpus, f"tree/parents.level{n}.npy") for n in levels),
        empty_leaves=int((np.diff(leaf_offsets) == 0).sum()),
    )


def write_tokenizer(corpus: Path, tokenizer: CorpusTokenizer) -> TokenizerEntry:
    """Write tokenizer.json."""
    tokenizer.tokenizer.save(str(corpus / "tokenizer.json"))
    entry = file_entry(corpus, "tokenizer.json")
    return TokenizerEntry(
        file=entry.file,
        bytes=entry.bytes,
        sha256=entry.sha256,
        vocab_size=tokenizer.vocab_size,
        separator_id=tokenizer.separator_id,
        pad_id=tokenizer.pad_id,
        source=tokenizer.source,
    )


def write_blocks(
    corpus: Path,
    name: str,
    tokens: TokenStore,
    documents: NDArray[np.int64],
    tokenizer: CorpusTokenizer,
    schema: SampleSchema,
) -> FileEntry:
    """Pack documents into CORPUS/NAME, an array (n, tokens_per_sample) whose last block is padded."""
    chunks = tokens.stream(documents, tokenizer.separator_id)
    blocks: list[Tokens] = list(cut_blocks(chunks, schema.tokens_per_sample, tokenizer.pad_id))
    np.save(corpus / name, np.concatenate(blocks).astype(schema.dtype, copy=False))
    return file_entry(corpus, name)


def write_provenance(
    corpus: Path, order: LeafOrder, documents: DocumentStore, lengths: NDArray[np.int64]
) -> FileEntry:
    """Write tree/documents.parquet: where every document came from, in leaf order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = order.documents
    columns: dict[str, Any] = {
        "source": pa.DictionaryArray.from_arrays(
            pa.array(documents.source[numbers]), pa.array(documents.source_names, pa.string())
        ),
        "row": pa.array(documents.row[numbers]),
        "leaf": pa.array(order.leaf.astype(np.int32)),
        "tokens": pa.array(lengths[numbers].astype(np.int32)),
    }
    pq.write_table(pa.table(columns), corpus / "tree" / "documents.parquet", compression="zstd")
    return file_entry(corpus, "tree/documents.parquet")
