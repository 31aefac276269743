"""The small files of a corpus folder, one function each."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.shards.packing import cut_blocks, join_documents
from clustering.shards.shard_units import ShardOptions
from clustering.shards.token_parts import flat_tokens
from clustering.shards.tokenization import CorpusTokenizer
from clustering.trees.tree import Tree
from pipeline.corpus.manifest import (
    MANIFEST_FILE,
    FileEntry,
    TokenizerEntry,
    TreeEntry,
    file_entry,
)

FOLDERS = ("tree", "cards", "targets")
ROW_GROUP_DOCUMENTS = 2**18


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
        **asdict(entry),
        vocab_size=tokenizer.vocab_size,
        separator_id=tokenizer.separator_id,
        pad_id=tokenizer.pad_id,
        source=tokenizer.source,
    )


def write_blocks(corpus: Path, name: str, lists: Any, shards: ShardOptions) -> FileEntry:
    """Pack documents into CORPUS/NAME, an array (n, tokens_per_sample) whose last block is padded.

    The documents are an Arrow large_list of their tokens.
    """
    joined = join_documents(*flat_tokens(lists), shards.separator_id)
    blocks = list(cut_blocks([joined], shards.schema.tokens_per_sample, shards.pad_id))
    np.save(corpus / name, np.concatenate(blocks).astype(shards.schema.dtype, copy=False))
    return file_entry(corpus, name)


def index_entries(corpus: Path) -> list[FileEntry]:
    """The index of the shard format, if it has one."""
    index = corpus / "shards" / "index.json"
    return [file_entry(corpus, "shards/index.json")] if index.is_file() else []


def write_provenance(corpus: Path, tables: Iterable[Any], source_names: Sequence[str]) -> FileEntry:
    """Write tree/documents.parquet: where every document came from, in leaf order.

    Args:
        corpus: The corpus folder.
        tables: Pieces of any size with the columns document, source, row, leaf, tokens.
        source_names: What `source` is an index into.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array(source_names, pa.string())
    schema = pa.schema(
        [
            ("source", pa.dictionary(pa.int32(), pa.string())),
            ("row", pa.int64()),
            ("leaf", pa.int32()),
            ("tokens", pa.int32()),
        ]
    )
    path = corpus / "tree" / "documents.parquet"
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in _row_groups(tables):
            source = pa.DictionaryArray.from_arrays(table["source"].combine_chunks(), names)
            columns = [source, *(table[name] for name in ("row", "leaf", "tokens"))]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROW_GROUP_DOCUMENTS)
    return file_entry(corpus, "tree/documents.parquet")


def _row_groups(tables: Iterable[Any]) -> Iterator[Any]:
    """Recut tables, so that the file does not depend on how the work was cut."""
    import pyarrow as pa

    held: Any = None
    for table in tables:
        held = table if held is None else pa.concat_tables([held, table])
        while held.num_rows >= ROW_GROUP_DOCUMENTS:
            yield held.slice(0, ROW_GROUP_DOCUMENTS)
            held = held.slice(ROW_GROUP_DOCUMENTS)
    if held is not None and held.num_rows:
        yield held
