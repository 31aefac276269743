"""The last stage: everything of a corpus folder beside the shards, described in one manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clustering import corpus_files as files
from clustering.baseline import write_baseline
from clustering.cards import write_cards
from clustering.documents import DocumentStore
from clustering.packing import leaf_of_blocks, leaf_offsets_of
from clustering.roles import Roles
from clustering.shards import measure_shards, write_block_checksums
from clustering.targets import leaf_histogram
from clustering.tokenization import CorpusTokenizer
from clustering.tokens import TokenStore, tokenize_documents
from clustering.tree import Tree
from pipeline.blocks import whole_samples
from pipeline.manifest import Counts, Manifest, SampleSchema, TargetEntry, file_entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingredients:
    """What the earlier stages made."""

    documents: DocumentStore
    roles: Roles
    order: files.LeafOrder
    tree: Tree
    tokens: TokenStore
    tokenizer: CorpusTokenizer
    schema: SampleSchema
    shard_format: str
    """A key of `SHARD_FORMATS`."""
    block_bytes: int
    """Size that blocks aim at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetFiles:
    """What the earlier stages made of one target set."""

    name: str
    train: Path
    """Folder of a document store."""
    test: Path | None
    train_vectors: Path
    """float16 .npy (n, dim): embeddings of the train documents."""


def assemble(
    out: Path,
    made: Ingredients,
    *,
    targets: Sequence[TargetFiles],
    scratch: Path,
    embedder: str,
    empty_documents: int,
    duplicate_documents: int,
    options: dict[str, Any],
    static_model: Path | None,
) -> Manifest:
    """Write the small files of the corpus OUT, whose shards are there, and describe all of it.

    Args:
        out: The corpus folder.
        made: What the earlier stages made.
        targets: The target sets.
        scratch: A folder for working files.
        embedder: Name of the embedding model.
        empty_documents: Dropped on reading.
        duplicate_documents: Dropped on reading; documents of target sets are added.
        options: The options of the build, for the record.
        static_model: Folder of the embedding model, where it was distilled for this corpus.

    Returns:
        The manifest, not yet written.
    """
    order, tree, length = made.order, made.tree, made.schema.tokens_per_sample
    document_tokens = made.tokens.lengths[order.documents]
    leaf_tokens = np.bincount(
        order.leaf, weights=document_tokens + 1, minlength=tree.num_leaves
    ).astype(np.int64)
    leaf_offsets = leaf_offsets_of(leaf_of_blocks(leaf_tokens, length), tree.num_leaves)
    total_tokens = int(leaf_tokens.sum())
    cards = write_cards(
        out,
        levels=tree.levels,
        leaf_bounds_per_level=[tree.leaf_bounds(level) for level in range(len(tree.levels))],
        document_leaf=order.leaf,
        document_tokens=document_tokens,
        document_distance=order.distance,
        texts=lambda wanted: made.documents.texts(order.documents[wanted]),
        document_source=made.documents.source[order.documents],
        source_names=made.documents.source_names,
        leaf_offsets=leaf_offsets,
    )
    heldout = None
    if len(made.roles.heldout):
        heldout = files.write_blocks(
            out, "heldout.npy", made.tokens, made.roles.heldout, made.tokenizer, made.schema
        )
    target_folders = (folder for target in targets for folder in (target.train, target.test))
    target_stores = [DocumentStore(folder) for folder in target_folders if folder is not None]
    shards = measure_shards(out, made.schema, made.shard_format)
    index = out / "shards" / "index.json"
    return Manifest(
        counts=Counts(
            documents=len(order.documents),
            tokens=total_tokens,
            padding_tokens=-total_tokens % length,
            empty_documents=empty_documents,
            duplicate_documents=duplicate_documents + len(made.roles.in_targets),
            heldout_documents=len(made.roles.heldout),
        ),
        sample=made.schema,
        tokenizer=files.write_tokenizer(out, made.tokenizer),
        tree=files.write_tree(out, tree, leaf_offsets),
        shards=shards,
        blocks=write_block_checksums(out, shards, whole_samples(made.block_bytes, made.schema)),
        heldout=heldout,
        targets=tuple(_write_target(out, made, target, scratch) for target in targets),
        embedder=embedder,
        build=options,
        extras=(
            *([file_entry(out, "shards/index.json")] if index.is_file() else []),
            files.write_provenance(out, order, made.documents, made.tokens.lengths),
            *(file_entry(out, name) for name in cards),
            *write_baseline(
                out,
                digests=[store.digests[:, 0] for store in (made.documents, *target_stores)],
                distances=[order.distance],
                static_model=static_model,
            ),
        ),
        shard_format=made.shard_format,
    )


def _write_target(out: Path, made: Ingredients, target: TargetFiles, scratch: Path) -> TargetEntry:
    """Tokenise one target set and find its leaves."""
    entries, counts = {}, {"train": 0, "test": 0}
    for part, folder in (("train", target.train), ("test", target.test)):
        if folder is None:
            continue
        documents = DocumentStore(folder)
        counts[part] = len(documents)
        tokenize_documents(documents, made.tokenizer, scratch)
        tokens = TokenStore(scratch, made.tokenizer.dtype)
        entries[part] = files.write_blocks(
            out,
            f"targets/{target.name}.{part}.npy",
            tokens,
            np.arange(len(documents)),
            made.tokenizer,
            made.schema,
        )
        if part == "train":
            vectors = np.load(target.train_vectors).astype(np.float32)
            histogram = leaf_histogram(made.tree, vectors, tokens.lengths + 1)
            np.save(out / "targets" / f"{target.name}.histogram.npy", histogram)
    return TargetEntry(
        name=target.name,
        train=entries["train"],
        test=entries.get("test"),
        histogram=file_entry(out, f"targets/{target.name}.histogram.npy"),
        train_documents=counts["train"],
        test_documents=counts["test"],
    )
