"""Writes small real corpora: MDS shards by MDSWriter, a tree, target sets, a manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clustering.shards.shards import measure_shards, write_block_checksums
from pipeline.corpus.manifest import (
    Counts,
    FileEntry,
    Manifest,
    SampleSchema,
    TargetEntry,
    TokenizerEntry,
    TreeEntry,
    file_entry,
)
from pipeline.corpus.places import LocalPlace
from pipeline.corpus.segments import NEW, SegmentFiles, appended, segment_folder
from pipeline.corpus.versions import publish_version
from pipeline.corpus.view import View
from pipeline.storage.blocks import whole_samples
from pipeline.storage.ranges import DomainRanges

SEPARATOR, PAD = 0, 1


def write_corpus(
    folder: Path,
    leaf_sizes: Sequence[int],
    *,
    levels: Sequence[int],
    split_order: Sequence[int] | None = None,
    tokens: Callable[[NDArray[np.int64]], NDArray[np.uint16]] | None = None,
    tokens_per_sample: int = 8,
    vocab_size: int = 64,
    shard_bytes: int = 1 << 26,
    block_bytes: int = 1 << 20,
    targets: dict[str, tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.float64]]]
    | None = None,
    heldout: NDArray[np.uint16] | None = None,
) -> Path:
    """A corpus whose leaf i owns leaf_sizes[i] samples.

    By default sample p holds the number p in its first four tokens, so that a test can read back which
    sample it got; `tokens` maps the leaf of every sample (n,) to token blocks (n, tokens_per_sample).
    """
    leaf_offsets = np.cumsum([0, *leaf_sizes]).astype(np.int64)
    num_leaves, num_samples = len(leaf_sizes), int(leaf_offsets[-1])
    leaf_of_sample = np.repeat(np.arange(num_leaves), leaf_sizes)
    blocks = tokens(leaf_of_sample) if tokens else _numbered(num_samples, tokens_per_sample)
    (folder / "tree").mkdir(parents=True)
    (folder / "targets").mkdir()
    _write_shards(folder / "shards", blocks, shard_bytes)

    def array(name: str, values: NDArray[np.generic]) -> FileEntry:
        np.save(folder / name, values)
        return file_entry(folder, name)

    if split_order is None:
        split_order = np.random.default_rng(0).permutation(np.arange(1, num_leaves)).tolist()
    tree = TreeEntry(
        levels=tuple(levels),
        leaf_offsets=array("tree/leaf_offsets.npy", leaf_offsets),
        split_order=array("tree/split_order.npy", np.array(split_order, dtype=np.int64)),
        centroids=tuple(
            array(f"tree/centroids.level{n}.npy", np.eye(count, 4, dtype=np.float32))
            for n, count in enumerate(levels[1:], start=1)
        ),
        parents=tuple(
            array(f"tree/parents.level{n}.npy", np.zeros(count, dtype=np.int64))
            for n, count in enumerate(levels[1:], start=1)
        ),
        empty_leaves=sum(size == 0 for size in leaf_sizes),
    )
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    tokenizer = file_entry(folder, "tokenizer.json")
    sample = SampleSchema(
        tokens_per_sample=tokens_per_sample, dtype="uint16", stride_bytes=2 * tokens_per_sample
    )
    shards = measure_shards(folder, sample)
    manifest = Manifest(
        counts=Counts(
            documents=num_samples,
            tokens=num_samples * tokens_per_sample,
            padding_tokens=0,
            empty_documents=0,
            duplicate_documents=0,
            heldout_documents=0,
        ),
        sample=sample,
        tokenizer=TokenizerEntry(
            file=tokenizer.file,
            bytes=tokenizer.bytes,
            sha256=tokenizer.sha256,
            vocab_size=vocab_size,
            separator_id=SEPARATOR,
            pad_id=PAD,
            source="trained",
        ),
        tree=tree,
        shards=shards,
        blocks=write_block_checksums(folder, shards, whole_samples(block_bytes, sample)),
        heldout=None if heldout is None else array("heldout.npy", heldout),
        targets=tuple(
            TargetEntry(
                name=name,
                train=array(f"targets/{name}.train.npy", train),
                test=array(f"targets/{name}.test.npy", test),
                histogram=array(f"targets/{name}.histogram.npy", histogram),
                train_documents=len(train),
                test_documents=len(test),
            )
            for name, (train, test, histogram) in (targets or {}).items()
        ),
        embedder="none",
    )
    manifest.write(folder)
    return folder


def add_segment(
    folder: Path,
    leaf_sizes: Sequence[int],
    *,
    tokens: Callable[[NDArray[np.int64]], NDArray[np.uint16]] | None = None,
    shard_bytes: int = 1 << 26,
    new: dict[str, bytes] | None = None,
) -> Path:
    """Append a segment whose leaf i owns leaf_sizes[i] samples, numbered on from those that are there.

    `tokens` as for `write_corpus`; `new` maps names of the corpus's files to what takes their place.
    """
    manifest = Manifest.read(folder)
    assert manifest.sample is not None
    length, first = manifest.sample.tokens_per_sample, manifest.num_samples
    segment = folder / segment_folder(manifest.version + 1)
    leaf_of_sample = np.repeat(np.arange(len(leaf_sizes)), leaf_sizes)
    numbered = _numbered(first + sum(leaf_sizes), length)[first:]
    blocks = tokens(leaf_of_sample) if tokens else numbered
    _write_shards(segment / "shards", blocks, shard_bytes)
    (segment / "tree").mkdir()
    np.save(segment / "tree" / "leaf_offsets.npy", np.cumsum([0, *leaf_sizes]).astype(np.int64))
    for name, content in (new or {}).items():
        (segment / NEW / name).parent.mkdir(parents=True, exist_ok=True)
        (segment / NEW / name).write_bytes(content)
    shards = measure_shards(segment, manifest.sample)
    counts = Counts(
        documents=len(blocks),
        tokens=len(blocks) * length,
        padding_tokens=0,
        empty_documents=0,
        duplicate_documents=0,
        heldout_documents=0,
    )
    checksums = write_block_checksums(segment, shards, manifest.blocks.block_bytes)
    files = SegmentFiles(
        shards=shards,
        leaf_offsets=file_entry(segment, "tree/leaf_offsets.npy"),
        blocks=file_entry(segment, checksums.file),
        counts=counts,
        own=(file_entry(segment, "shards/index.json"),),
        new=tuple(file_entry(segment, f"{NEW}/{name}") for name in new or {}),
    )
    publish_version(LocalPlace(folder), appended(manifest, files, empty_leaves=0))
    return folder


def position_of(tokens: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The positions that a numbered corpus wrote into its samples: (n, tokens) -> (n,)."""
    digits = tokens[:, :4].astype(np.int64)
    return digits @ np.array([1, 1 << 16, 1 << 32, 1 << 48], dtype=np.int64)


def _numbered(num_samples: int, tokens_per_sample: int) -> NDArray[np.uint16]:
    blocks = np.zeros((num_samples, tokens_per_sample), dtype=np.uint16)
    numbers = np.arange(num_samples, dtype=np.int64)
    for digit in range(4):
        blocks[:, digit] = (numbers >> (16 * digit)) & 0xFFFF
    return blocks


def _write_shards(folder: Path, blocks: NDArray[np.uint16], shard_bytes: int) -> None:
    from streaming import MDSWriter

    columns = {"tokens": f"ndarray:uint16:{blocks.shape[1]}"}
    with MDSWriter(
        out=str(folder), columns=columns, hashes=["sha256"], size_limit=shard_bytes
    ) as writer:
        for block in blocks:
            writer.write({"tokens": block})


def view_of(sizes: Sequence[int]) -> View:
    """A view whose domains have these sizes, of no corpus: for arithmetic on mixtures."""
    bounds = np.cumsum([0, *sizes]).astype(np.int64)
    return View(
        corpus_fingerprint="none",
        leaf_bounds=np.arange(len(sizes) + 1),
        ranges=DomainRanges(bounds[None]),
    )
