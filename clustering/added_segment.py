"""New documents in their leaves to the files of a segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.added_cards import Arrivals, write_added_cards
from clustering.added_documents import AddedDocuments
from clustering.baseline import DIGESTS_FILE, write_digests
from clustering.keyed_hash import keyed
from clustering.packing import cut_blocks, leaf_of_blocks, leaf_offsets_of
from clustering.shards import measure_shards, write_block_checksums, write_shards
from pipeline import Corpus
from pipeline.manifest import Counts, FileEntry, file_entry
from pipeline.segments import NEW, SegmentFiles

DOCUMENTS_FILE = "tree/documents.parquet"


def write_segment(
    corpus: Corpus,
    documents: AddedDocuments,
    source_names: Sequence[str],
    folder: Path,
    *,
    empty_documents: int,
    known_documents: int,
    advance: Callable[[int], None],
) -> tuple[SegmentFiles, NDArray[np.int64]]:
    """Write everything of a segment of `corpus` into `folder`.

    The documents lie in leaf order, in each leaf shuffled by keyed hash, as the build does it. `advance` gets
    the number of samples written since the last call.

    Returns:
        The files, and the samples of each leaf in this segment: int64 (num_leaves,).
    """
    manifest = corpus.manifest
    schema, tokenizer = manifest.sample, manifest.tokenizer
    assert schema is not None, "only token corpora are added to"
    assert tokenizer is not None
    leaf, digests = documents.column("leaf"), documents.column("digest")
    shuffle = keyed(digests, seed=int(manifest.build.get("seed", 0)), purpose="leaf order")
    order = np.lexsort((shuffle, leaf))
    leaf_tokens = np.bincount(
        leaf, weights=documents.lengths + 1, minlength=corpus.num_leaves
    ).astype(np.int64)
    length, total_tokens = schema.tokens_per_sample, int(leaf_tokens.sum())
    offsets = leaf_offsets_of(leaf_of_blocks(leaf_tokens, length), corpus.num_leaves)
    (folder / "tree").mkdir(parents=True)
    chunks = documents.stream(order, tokenizer.separator_id)
    write_shards(
        cut_blocks(chunks, length, tokenizer.pad_id),
        folder / "shards",
        schema,
        shard_format=manifest.shard_format,
        block_bytes=manifest.blocks.block_bytes,
        advance=advance,
    )
    shards = measure_shards(folder, schema, manifest.shard_format)
    blocks = write_block_checksums(folder, shards, manifest.blocks.block_bytes)
    np.save(folder / "tree" / "leaf_offsets.npy", offsets)
    write_digests(folder / DIGESTS_FILE, [digests])
    _write_provenance(folder, documents, source_names, order)
    cards = write_added_cards(
        corpus,
        Arrivals(
            leaf=leaf[order],
            source=documents.column("source")[order],
            source_names=source_names,
            texts=lambda wanted: documents.texts(order[wanted]),
            documents_per_leaf=np.bincount(leaf, minlength=corpus.num_leaves),
            tokens_per_leaf=leaf_tokens - np.bincount(leaf, minlength=corpus.num_leaves),
            samples_per_leaf=np.diff(offsets),
        ),
        folder / NEW,
    )
    index = folder / "shards" / "index.json"
    own: list[FileEntry] = [file_entry(folder, name) for name in (DIGESTS_FILE, DOCUMENTS_FILE)]
    if index.is_file():
        own.append(file_entry(folder, "shards/index.json"))
    files = SegmentFiles(
        shards=shards,
        leaf_offsets=file_entry(folder, "tree/leaf_offsets.npy"),
        blocks=FileEntry(file=blocks.file, bytes=blocks.bytes, sha256=blocks.sha256),
        counts=Counts(
            documents=len(documents),
            tokens=total_tokens,
            padding_tokens=-total_tokens % length,
            empty_documents=empty_documents,
            duplicate_documents=known_documents,
            heldout_documents=0,
        ),
        own=own,
        new=[file_entry(folder, f"{NEW}/{name}") for name in cards],
    )
    return files, np.diff(offsets)


def _write_provenance(
    folder: Path,
    documents: AddedDocuments,
    source_names: Sequence[str],
    order: NDArray[np.int64],
) -> None:
    """Where every document came from, in leaf order: the columns of the build's file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "source": pa.DictionaryArray.from_arrays(
            pa.array(documents.column("source")[order]), pa.array(source_names, pa.string())
        ),
        "row": pa.array(documents.column("row")[order]),
        "leaf": pa.array(documents.column("leaf")[order]),
        "tokens": pa.array(documents.lengths[order].astype(np.int32)),
    }
    pq.write_table(pa.table(columns), folder / DOCUMENTS_FILE, compression="zstd")
