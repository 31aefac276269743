"""The last stage: the files of the work store become a corpus folder, described in one manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards.card_files import describe_corpus
from clustering.corpus import corpus_files as files
from clustering.corpus.baseline import write_baseline
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.documents.targets import TargetDocuments, leaf_histogram
from clustering.embedding.embed_task import STATIC_MODEL
from clustering.shards.packing import leaf_offsets_of
from clustering.shards.shard_plan import LEAF_DOCUMENTS, LEAF_TOKENS, UNITS
from clustering.shards.shard_units import ShardOptions, blocks_name, documents_name, unit_name
from clustering.shards.shards import SHARD_FORMATS, save_block_checksums
from clustering.shards.token_parts import flat_tokens, token_lists
from clustering.shards.tokenization import CorpusTokenizer
from clustering.trees.assignment import assigned_name
from clustering.trees.target_leaves import write_target_leaves
from clustering.trees.tree import Tree
from clustering.work.stages import published
from clustering.work.work_store import WorkStore
from pipeline.corpus.manifest import Counts, Manifest, ShardEntry, TargetEntry, file_entry
from pipeline.storage.blocks import whole_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingredients:
    """What the earlier stages made."""

    store: WorkStore
    documents: DocumentParts
    roles: DocumentRoles
    tree: Tree
    tokenizer: CorpusTokenizer
    shards: ShardOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetFiles:
    """What the earlier stages made of one target set."""

    name: str
    train: TargetDocuments
    test: TargetDocuments | None
    train_vectors: NDArray[np.float16]
    """(n, dim): embeddings of the train documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What the manifest says of how the corpus was built."""

    embedder: str
    """Name of the embedding model, and how it computed."""
    empty_documents: int
    duplicate_documents: int
    documents_in_targets: int
    """Dropped, because a target set has them."""
    options: dict[str, Any]
    has_static_model: bool
    """Whether the embedding model was distilled for this corpus."""


def assemble(
    out: Path,
    made: Ingredients,
    *,
    targets: Sequence[TargetFiles],
    provenance: Provenance,
    advance: Callable[[int], None],
) -> Manifest:
    """Write the corpus folder OUT and describe it; returns the manifest, not yet written.

    `advance` is told how many texts were read for the cards, which is most of the time.
    """
    store, tree, schema = made.store, made.tree, made.shards.schema
    leaf_tokens, leaf_documents = store.array(LEAF_TOKENS), store.array(LEAF_DOCUMENTS)
    length, total_tokens = schema.tokens_per_sample, int(leaf_tokens.sum())
    leaf_offsets = leaf_offsets_of(leaf_tokens, length)
    num_units = len(store.array(UNITS))
    shards = collect_shards(out, store, made.shards.shard_format)
    checksums = np.concatenate([store.array(blocks_name(unit)) for unit in range(num_units)])
    heldout = np.asarray(made.roles.heldout())
    leaves = [tree.assign(target.train_vectors.astype(np.float32)) for target in targets]
    cards = describe_corpus(out, store, tree, leaf_offsets, advance)
    return Manifest(
        counts=Counts(
            documents=int(leaf_documents.sum()),
            tokens=total_tokens,
            padding_tokens=-total_tokens % length,
            empty_documents=provenance.empty_documents,
            duplicate_documents=provenance.duplicate_documents + provenance.documents_in_targets,
            heldout_documents=len(heldout),
        ),
        sample=schema,
        tokenizer=files.write_tokenizer(out, made.tokenizer),
        tree=files.write_tree(out, tree, leaf_offsets),
        shards=shards,
        blocks=save_block_checksums(out, checksums, whole_samples(made.shards.block_bytes, schema)),
        heldout=files.write_blocks(
            out, "heldout.npy", _tokens(made.documents.texts(heldout), made), made.shards
        )
        if len(heldout)
        else None,
        targets=tuple(
            _write_target(out, made, target, of_target)
            for target, of_target in zip(targets, leaves, strict=True)
        ),
        embedder=provenance.embedder,
        build=provenance.options,
        extras=(
            *files.index_entries(out),
            files.write_provenance(
                out,
                (store.table(documents_name(unit)) for unit in range(num_units)),
                made.documents.source_names,
            ),
            *(file_entry(out, name) for name in cards),
            *_baseline(out, made, targets, provenance),
            *(
                write_target_leaves(out, target.name, of_target)
                for target, of_target in zip(targets, leaves, strict=True)
            ),
        ),
        shard_format=made.shards.shard_format,
    )


def collect_shards(out: Path, store: WorkStore, shard_format: str) -> tuple[ShardEntry, ...]:
    """Bring the shards of all units into OUT/shards; hard links where work store and corpus share a disk."""
    entries, index = [], []
    with published(out / "shards") as folder:
        folder.mkdir()
        for unit in range(len(store.array(UNITS))):
            record = json.loads(store.content(unit_name(unit)))
            for content in record["shards"]:
                entry = ShardEntry(**content)
                store.copy_to(f"write/{entry.file}", folder / Path(entry.file).name)
                entries.append(entry)
            index += record["index"]
        SHARD_FORMATS[shard_format].write_index(folder, index)
    return tuple(entries)


def _baseline(
    out: Path, made: Ingredients, targets: Sequence[TargetFiles], provenance: Provenance
) -> Iterator[Any]:
    """What later additions compare with."""
    documents, roles, store = made.documents, made.roles, made.store
    parts = range(documents.num_parts)
    of_targets = [part for target in targets for part in (target.train, target.test) if part]
    with store.scratch() as scratch:
        yield from write_baseline(
            out,
            digests=(
                *(documents.digests(part)[roles.kept(part), 0] for part in parts),
                *(target.digests[:, 0] for target in of_targets),
            ),
            distances=(store.table(assigned_name(part))["distance"].to_numpy() for part in parts),
            static_model=_static_model(store, scratch) if provenance.has_static_model else None,
            scratch=scratch,
        )


def _static_model(store: WorkStore, scratch: Path) -> Path:
    """The distilled model in a folder, without what the stage keeps beside it."""
    folder = scratch / STATIC_MODEL
    for name in store.names(f"{STATIC_MODEL}/"):
        if name not in (f"{STATIC_MODEL}/key", f"{STATIC_MODEL}/done.json"):
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            store.copy_to(name, scratch / name)
    return folder


def _write_target(
    out: Path, made: Ingredients, target: TargetFiles, leaves: NDArray[np.int64]
) -> TargetEntry:
    """Tokenise one target set; `leaves` (n,) are those of its train documents."""
    entries, counts = {}, {"train": 0, "test": 0}
    for part, documents in (("train", target.train), ("test", target.test)):
        if documents is None:
            continue
        counts[part] = len(documents)
        lists = _tokens(documents.texts, made)
        name = f"targets/{target.name}.{part}.npy"
        entries[part] = files.write_blocks(out, name, lists, made.shards)
        if part == "train":
            histogram = leaf_histogram(made.tree, leaves, flat_tokens(lists)[2] + 1)
            np.save(out / "targets" / f"{target.name}.histogram.npy", histogram)
    return TargetEntry(
        name=target.name,
        train=entries["train"],
        test=entries.get("test"),
        histogram=file_entry(out, f"targets/{target.name}.histogram.npy"),
        train_documents=counts["train"],
        test_documents=counts["test"],
    )


def _tokens(texts: Sequence[str], made: Ingredients) -> Any:
    import pyarrow as pa

    return token_lists(pa.array(texts, pa.large_string()), made.tokenizer)
