"""What the stages of an addition left in the work store, to the files of a segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards.added_cards import Arrivals, write_added_cards
from clustering.corpus.assemble import collect_shards
from clustering.corpus.baseline import DIGESTS_FILE, write_digests
from clustering.corpus.corpus_files import index_entries, write_provenance
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.shards.packing import leaf_offsets_of
from clustering.shards.shard_plan import LEAF_DOCUMENTS, LEAF_TOKENS, UNITS
from clustering.shards.shard_units import blocks_name, documents_name
from clustering.shards.shards import save_block_checksums
from clustering.work.work_store import WorkStore
from pipeline import Corpus
from pipeline.corpus.manifest import Counts, FileEntry, file_entry
from pipeline.corpus.segments import NEW, SegmentFiles


def write_segment(
    corpus: Corpus,
    store: WorkStore,
    documents: DocumentParts,
    folder: Path,
    *,
    empty_documents: int,
    known_documents: int,
) -> tuple[SegmentFiles, NDArray[np.int64]]:
    """Write everything of a segment of `corpus` into `folder`.

    Returns:
        The files, and the samples of each leaf in this segment: int64 (num_leaves,).
    """
    manifest, length = corpus.manifest, corpus.tokens_per_sample
    leaf_tokens, leaf_documents = store.array(LEAF_TOKENS), store.array(LEAF_DOCUMENTS)
    offsets = leaf_offsets_of(leaf_tokens, length)
    total_tokens, num_units = int(leaf_tokens.sum()), len(store.array(UNITS))
    (folder / "tree").mkdir(parents=True)
    shards = collect_shards(folder, store, manifest.shard_format)
    checksums = np.concatenate([store.array(blocks_name(unit)) for unit in range(num_units)])
    blocks = save_block_checksums(folder, checksums, manifest.blocks.block_bytes)
    np.save(folder / "tree" / "leaf_offsets.npy", offsets)
    roles = DocumentRoles(store, documents.part_offsets)
    digests = (
        documents.digests(part)[roles.corpus(part), 0] for part in range(documents.num_parts)
    )
    with store.scratch() as scratch:
        write_digests(folder / DIGESTS_FILE, digests, scratch)
    tables = [store.table(documents_name(unit)) for unit in range(num_units)]
    provenance = write_provenance(folder, tables, documents.source_names)

    def column(name: str) -> NDArray[Any]:
        values: NDArray[Any] = np.concatenate([table[name].to_numpy() for table in tables])
        return values

    numbers = column("document")
    arrivals = Arrivals(
        leaf=column("leaf").astype(np.int64),
        source=column("source"),
        source_names=documents.source_names,
        texts=lambda wanted: documents.texts(numbers[wanted]),
        documents_per_leaf=leaf_documents,
        tokens_per_leaf=leaf_tokens - leaf_documents,
        samples_per_leaf=np.diff(offsets),
    )
    cards = write_added_cards(corpus, arrivals, folder / NEW)
    files = SegmentFiles(
        shards=shards,
        leaf_offsets=file_entry(folder, "tree/leaf_offsets.npy"),
        blocks=FileEntry(file=blocks.file, bytes=blocks.bytes, sha256=blocks.sha256),
        counts=Counts(
            documents=len(numbers),
            tokens=total_tokens,
            padding_tokens=-total_tokens % length,
            empty_documents=empty_documents,
            duplicate_documents=known_documents,
            heldout_documents=0,
        ),
        own=[file_entry(folder, DIGESTS_FILE), provenance, *index_entries(folder)],
        new=[file_entry(folder, f"{NEW}/{name}") for name in cards],
    )
    return files, np.diff(offsets)
