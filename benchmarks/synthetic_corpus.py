"""A corpus of synthetic text, written in seconds and with nothing but numpy: a real one for the trainer.

Groups of leaves have a part of the vocabulary of their own, and a leaf counts through its group's part with
its own stride, so a model learns quickly what tells domains apart. Every target set is text like one leaf.
Shards are MDS.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.shards.shards import measure_shards, write_block_checksums
from pipeline import Corpus, open_corpus
from pipeline.corpus.manifest import (
    MANIFEST_FILE,
    Counts,
    FileEntry,
    Manifest,
    SampleSchema,
    TargetEntry,
    TokenizerEntry,
    TreeEntry,
    file_entry,
)
from pipeline.storage.blocks import whole_samples

SEPARATOR, PAD = 0, 1
NOISE = 0.3
"""Share of tokens that say nothing of the domain."""
HELDOUT = 256
SHARD_BYTES = 2**26
BLOCK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticText:
    """How much of it, and of what shape."""

    groups: int
    """Domains of level 1."""
    leaves_per_group: int
    samples_per_leaf: int
    tokens_per_sample: int
    vocab_size: int
    targets: int = 4
    target_samples: int = 256
    """Train samples of each target set; test has a quarter as many."""

    @property
    def leaves(self) -> int:
        """Domains at the finest granularity."""
        return self.groups * self.leaves_per_group

    def blocks(self, leaves: NDArray[np.int64], seed: int) -> NDArray[np.uint16]:
        """Text like that of `leaves` (n,): (n, tokens_per_sample)."""
        rng = np.random.default_rng(seed)
        group, leaf = np.divmod(leaves, self.leaves_per_group)
        part = (self.vocab_size - 2) // self.groups
        count = rng.integers(0, part, len(leaves))[:, None] + (
            (2 * leaf[:, None] + 1) * np.arange(self.tokens_per_sample)
        )
        text = 2 + part * group[:, None] + count % part
        noise = rng.random(text.shape, dtype=np.float32) < NOISE
        text[noise] = rng.integers(2, self.vocab_size, int(noise.sum()))
        return text.astype(np.uint16)


def synthetic_corpus(folder: Path, text: SyntheticText) -> Corpus:
    """The corpus in `folder`; it is written first unless it is there."""
    if not (folder / MANIFEST_FILE).exists():
        _write(folder, text)
    return open_corpus(folder)


def _write(folder: Path, text: SyntheticText) -> None:
    (folder / "tree").mkdir(parents=True, exist_ok=True)
    (folder / "targets").mkdir(exist_ok=True)
    sample = SampleSchema(
        tokens_per_sample=text.tokens_per_sample,
        dtype="uint16",
        stride_bytes=2 * text.tokens_per_sample,
    )
    leaf_of_sample = np.repeat(np.arange(text.leaves), text.samples_per_leaf)
    write_mds(folder / "shards", text.blocks(leaf_of_sample, seed=0))

    def array(name: str, values: NDArray[np.generic]) -> FileEntry:
        np.save(folder / name, values)
        return file_entry(folder, name)

    def target(number: int) -> TargetEntry:
        leaf = number * text.leaves // text.targets
        examples = text.blocks(np.full(text.target_samples * 5 // 4, leaf), seed=1 + number)
        histogram = (np.arange(text.leaves) == leaf).astype(np.float64)
        train, test = np.split(examples, [text.target_samples])
        return TargetEntry(
            name=f"leaf{leaf}",
            train=array(f"targets/{number}.train.npy", train),
            test=array(f"targets/{number}.test.npy", test),
            histogram=array(f"targets/{number}.histogram.npy", histogram),
            train_documents=len(train),
            test_documents=len(test),
        )

    boundaries = np.arange(1, text.leaves)
    between_groups = boundaries % text.leaves_per_group == 0
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    tokenizer = file_entry(folder, "tokenizer.json")
    shards = measure_shards(folder, sample)
    num_samples = len(leaf_of_sample)
    Manifest(
        counts=Counts(
            documents=num_samples,
            tokens=num_samples * text.tokens_per_sample,
            padding_tokens=0,
            empty_documents=0,
            duplicate_documents=0,
            heldout_documents=HELDOUT,
        ),
        sample=sample,
        tokenizer=TokenizerEntry(
            **asdict(tokenizer),
            vocab_size=text.vocab_size,
            separator_id=SEPARATOR,
            pad_id=PAD,
            source="none",
        ),
        tree=TreeEntry(
            levels=(1, text.groups, text.leaves),
            leaf_offsets=array(
                "tree/leaf_offsets.npy", np.arange(text.leaves + 1) * text.samples_per_leaf
            ),
            split_order=array(
                "tree/split_order.npy",
                np.concatenate([boundaries[between_groups], boundaries[~between_groups]]),
            ),
            centroids=(),
            parents=(),
            empty_leaves=0,
        ),
        shards=shards,
        blocks=write_block_checksums(folder, shards, whole_samples(BLOCK_BYTES, sample)),
        heldout=array(
            "heldout.npy", text.blocks(np.arange(HELDOUT) * text.leaves // HELDOUT, seed=99)
        ),
        targets=tuple(target(number) for number in range(text.targets)),
        embedder="none",
    ).write(folder)


def write_mds(folder: Path, samples: NDArray[Any]) -> None:
    """Write `samples` (n, tokens) as MDS shards with their index, as MDSWriter does it for one column.

    A shard: the number of samples, where each begins and the last ends, the column's description, samples.
    """
    folder.mkdir(parents=True)
    described = {
        "column_encodings": [f"ndarray:{samples.dtype.name}:{samples.shape[1]}"],
        "column_names": ["tokens"],
        "column_sizes": [samples[0].nbytes],
        "compression": None,
        "format": "mds",
        "hashes": ["sha256"],
        "size_limit": SHARD_BYTES,
    }
    description = json.dumps(described, sort_keys=True).encode()
    shards = []
    per_shard = SHARD_BYTES // samples[0].nbytes
    for number, start in enumerate(range(0, len(samples), per_shard)):
        part = samples[start : start + per_shard]
        first = 4 * (len(part) + 2) + len(description)
        begins = first + part[0].nbytes * np.arange(len(part) + 1)
        head = np.concatenate([[len(part)], begins]).astype("<u4").tobytes()
        content = head + description + part.astype(part.dtype.newbyteorder("<")).tobytes()
        name = f"shard.{number:05}.mds"
        (folder / name).write_bytes(content)
        hashes = {"sha256": hashlib.sha256(content).hexdigest()}
        raw = {"basename": name, "bytes": len(content), "hashes": hashes}
        shards.append(
            {**described, "version": 2, "zip_data": None, "raw_data": raw, "samples": len(part)}
        )
    index = {"version": 2, "shards": shards}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
