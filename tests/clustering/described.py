"""Cards for a corpus of the test's own making, by the stages that a build goes through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clustering.cards.card_files import describe_corpus
from clustering.cards.cards import card_file
from clustering.cards.describe_task import DescribeTask
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import CORPUS, ROLE
from clustering.documents.duplicates import COPIES
from clustering.documents.reading import FILES, PARTS
from clustering.embedding.embedding_parts import part_name, publish_vectors
from clustering.shards.token_parts import tokens_name
from clustering.trees.assignment import assigned_name
from clustering.trees.tree import Tree
from clustering.work.keyed_hash import text_digest
from clustering.work.work_store import LocalWork


def tree_of(*parents: Sequence[int], split_order: Sequence[int], dim: int = 16) -> Tree:
    """A tree of levels with these parents, and centroids of unit norm."""
    rng = np.random.default_rng(0)
    return Tree(
        centroids=tuple(unit(rng.normal(size=(len(level), dim))) for level in parents),
        parents=tuple(np.array(level, dtype=np.int64) for level in parents),
        split_order=np.array(split_order, dtype=np.int64),
    )


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of norm 1."""
    rows: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows.astype(np.float32)


def write_described(
    out: Path,
    work: Path,
    tree: Tree,
    *,
    texts: Sequence[str],
    leaf: NDArray[np.int64],
    source: NDArray[np.int64],
    source_names: Sequence[str],
    tokens: NDArray[np.int64],
    leaf_offsets: NDArray[np.int64],
    vectors: NDArray[np.float32] | None = None,
    copies: NDArray[np.uint32] | None = None,
    part_documents: int = 64,
) -> list[str]:
    """Write the cards of documents in any order; returns the files, relative to `out`.

    Without `vectors` (n, dim), which have unit norm, documents lie around the centroids of their leaves.
    """
    store, count = LocalWork(work), len(texts)
    leaves = tree.centroids[-1]
    if vectors is None:
        noise = np.random.default_rng(1).normal(size=(count, leaves.shape[1]))
        vectors = unit(leaves[leaf] + 0.2 * noise)
    vectors = vectors.astype(np.float16).astype(np.float32)
    distance = (1 - (vectors * leaves[leaf]).sum(axis=1)).astype(np.float32)
    names, sizes = [], []
    for part, begin in enumerate(range(0, count, part_documents)):
        here = slice(begin, begin + part_documents)
        sizes.append(len(texts[here]))
        names.append(f"read/parts-00000-{part:03}.arrow")
        columns = {
            "text": pa.array(texts[here], pa.large_string()),
            "source": pa.array(source[here].astype(np.int32)),
            "row": np.arange(sizes[-1]),
            "digest": pa.array([text_digest(text) for text in texts[here]], pa.binary(16)),
        }
        store.publish_table(names[-1], pa.table(columns))
        assigned = {"leaf": leaf[here].astype(np.int32), "distance": distance[here]}
        store.publish_table(assigned_name(part), pa.table(assigned))
        lists = pa.array([[1] * n for n in tokens[here].tolist()], pa.large_list(pa.uint16()))
        store.publish_table(tokens_name(part), pa.table({"tokens": lists}))
        ids = [f"document {i}" for i in range(begin, begin + sizes[-1])]
        publish_vectors(store, part_name(part), ids, vectors[here])
    store.publish(f"read/{PARTS}", json.dumps({"names": names, "documents": sizes}).encode())
    store.publish_table(f"read/{FILES}", pa.table({"name": list(source_names)}))
    store.publish_array(COPIES, np.ones(count, dtype=np.uint32) if copies is None else copies)
    store.publish_array(ROLE, np.full(count, CORPUS, dtype=np.uint8))
    task = DescribeTask(store=store, num_leaves=tree.num_leaves, seed=0)
    for part in reversed(range(DocumentParts(store).num_parts)):
        task(part)
    return describe_corpus(out, store, tree, leaf_offsets)


def cards_of(corpus: Path, level: int) -> list[dict[str, Any]]:
    """The cards of a level."""
    lines = (corpus / card_file(level)).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]
