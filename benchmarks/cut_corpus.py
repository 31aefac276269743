"""Smaller versions of a corpus: fewer tokens per domain, or fewer examples of its targets.

Each is a corpus of its own with the same tree, tokenizer and tests, so whatever runs on it needs to know
nothing of the cut, and a smaller cut is a part of a larger one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_corpus import write_mds
from clustering.shards.packing import cut_blocks
from clustering.shards.shards import measure_shards, write_block_checksums
from clustering.trees.target_leaves import read_target_leaves
from pipeline import Corpus, CorpusError, open_corpus
from pipeline.corpus.manifest import MANIFEST_FILE, FileEntry, TargetEntry, file_entry
from pipeline.storage.blocks import whole_samples
from pipeline.stream.counter_rng import random_uniform

_SAMPLE_CHOICE, _EXAMPLE_CHOICE = 0x637574, 0x65786D


def cut_domains(corpus: Corpus, folder: Path, *, k: int, tokens: int) -> Corpus:
    """At most `tokens` tokens of each of the k domains, chosen at random, as the corpus in `folder`.

    It is made unless it is there. In whole samples, at least one of each domain that has any.
    """
    build = {"cut_from": corpus.fingerprint, "k": k, "tokens_per_domain": tokens}
    if (folder / MANIFEST_FILE).exists():
        return _made_before(folder, build)
    manifest = corpus.manifest
    assert manifest.sample is not None
    positions = np.arange(corpus.num_samples)
    domain = corpus.domains(k=k).domains_at(positions)
    leaf = corpus.domains(k=corpus.num_leaves).domains_at(positions)
    limit = max(1, tokens // corpus.tokens_per_sample)
    kept = _first_of_each(domain, random_uniform(0, _SAMPLE_CHOICE, positions), limit)
    kept = kept[np.lexsort((kept, leaf[kept]))]
    tree = manifest.tree
    _bring(
        corpus,
        folder,
        [
            tree.split_order,
            *tree.centroids,
            *tree.parents,
            manifest.tokenizer,
            manifest.heldout,
            *(
                file
                for entry in manifest.targets
                for file in (entry.train, entry.test, entry.histogram)
            ),
            *_leaves_of_targets(corpus),
        ],
    )
    shutil.rmtree(folder / "shards", ignore_errors=True)  # of a cut that was stopped
    write_mds(folder / "shards", corpus.read(kept))
    sizes = np.bincount(leaf[kept], minlength=corpus.num_leaves)
    schema = replace(manifest.sample, stride_bytes=manifest.sample.sample_bytes, column="tokens")
    shards = measure_shards(folder, schema)
    replace(
        manifest,
        counts=replace(manifest.counts, tokens=len(kept) * schema.tokens_per_sample),
        sample=schema,
        tree=replace(
            tree,
            leaf_offsets=_array(folder, "tree/leaf_offsets.npy", np.cumsum([0, *sizes])),
            empty_leaves=int((sizes == 0).sum()),
        ),
        shards=shards,
        blocks=write_block_checksums(
            folder, shards, whole_samples(manifest.blocks.block_bytes, schema)
        ),
        extras=_leaves_of_targets(corpus),
        shard_format="mds",
        added=(),
        build=build,
    ).write(folder)
    return open_corpus(folder)


def cut_examples(corpus: Corpus, folder: Path, *, examples: int, seed: int = 0) -> Corpus:
    """At most `examples` train documents of each target set, chosen by `seed`, as the corpus in `folder`.

    It is made unless it is there. Histograms are those of the chosen documents; the shards are shared.
    """
    build = {"cut_from": corpus.fingerprint, "examples": examples, "seed": seed}
    if (folder / MANIFEST_FILE).exists():
        return _made_before(folder, build)
    manifest = corpus.manifest
    changed = {file.file for entry in manifest.targets for file in (entry.train, entry.histogram)}
    changed |= {file.file for file in manifest.extras}
    _bring(corpus, folder, [file for file in manifest.files if file.file not in changed])
    replace(
        manifest,
        targets=tuple(
            _cut_target(corpus, folder, entry, examples=examples, seed=seed)
            for entry in manifest.targets
        ),
        extras=(),
        build=build,
    ).write(folder)
    return open_corpus(folder)


def _made_before(folder: Path, build: dict[str, Any]) -> Corpus:
    """The corpus in `folder`; raises `CorpusError` where it was cut otherwise."""
    corpus = open_corpus(folder)
    if corpus.manifest.build != build:
        raise CorpusError(
            f"{folder} has a cut by {corpus.manifest.build}, and {build} is asked for. Name another folder."
        )
    return corpus


def _cut_target(
    corpus: Corpus, folder: Path, entry: TargetEntry, *, examples: int, seed: int
) -> TargetEntry:
    documents = _documents(corpus, entry)
    leaves = read_target_leaves(corpus, entry.name)
    priority = random_uniform(seed, _EXAMPLE_CHOICE, np.arange(len(documents)))
    chosen = np.sort(np.argsort(priority, kind="stable")[:examples])
    parts = [documents[number] for number in chosen]
    blocks = list(cut_blocks(parts, corpus.tokens_per_sample, corpus.pad_id))
    weights = [len(part) for part in parts]
    histogram = np.bincount(leaves[chosen], weights=weights, minlength=corpus.num_leaves)
    train = np.concatenate(blocks).astype(documents[0].dtype)
    return replace(
        entry,
        train=_array(folder, entry.train.file, train),
        histogram=_array(folder, entry.histogram.file, histogram / histogram.sum()),
        train_documents=len(chosen),
    )


def _documents(corpus: Corpus, entry: TargetEntry) -> list[NDArray[Any]]:
    """The train documents of a target, each with the separator that ends it, out of the blocks they fill."""
    stream = corpus.target(entry.name).train.ravel()
    ends = np.flatnonzero(stream == corpus.separator_id) + 1
    if len(ends) != entry.train_documents:
        raise CorpusError(
            f"target {entry.name!r} has {entry.train_documents:,} train documents and {len(ends):,} "
            "separators: a text holds the separator itself, so documents cannot be told apart."
        )
    return np.split(stream[: ends[-1]], ends[:-1])


def _first_of_each(
    group: NDArray[np.int64], priority: NDArray[np.float64], limit: int
) -> NDArray[np.int64]:
    """Indices of the `limit` elements of lowest priority in every group; `group`, `priority` are (n,)."""
    order = np.lexsort((priority, group))
    ordered = group[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    return order[rank < limit]


def _leaves_of_targets(corpus: Corpus) -> tuple[FileEntry, ...]:
    """Where the examples of the targets lie, as far as the corpus says it."""
    return tuple(file for file in corpus.manifest.extras if file.file.endswith(".leaves.npy"))


def _bring(corpus: Corpus, folder: Path, files: Iterable[FileEntry | None]) -> None:
    """Have the files in `folder` too, without a second copy where the file system allows it."""
    for entry in files:
        if entry is None:
            continue
        source, target = corpus.path / entry.file, folder / entry.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def _array(folder: Path, name: str, values: NDArray[Any]) -> FileEntry:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, values)
    return file_entry(folder, name)
