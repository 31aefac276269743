"""The stage `fit`: a tree for the corpus, fitted on a sample of its documents.

    fit/centroids.level1.npy, fit/parents.level1.npy, ..., fit/split_order.npy

The sample is drawn by the keyed hash of the texts, so it does not depend on how the input is cut into files.
Its vectors are gathered part by part into a mapped file: memory is bounded by what k-means of one node sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.embedding.embedding_parts import EmbeddingParts
from clustering.trees.tree import Tree
from clustering.trees.tree_fit import LARGEST_LEAF, FittedSample, fit_sample
from clustering.work.keyed_hash import keyed
from clustering.work.work_store import WorkStore

FIT = "fit/"
DOCUMENTS_PER_LEAF = 128
"""A leaf is then some 3% nearer to documents that it was fitted on than to others (docs/benchmarks.md)."""
MIN_FIT_DOCUMENTS = 65_536
MAX_FIT_DOCUMENTS = 2**23
"""6 GiB of mapped vectors at 384 dimensions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """What a tree is fitted with."""

    branching: tuple[int, ...]
    """Children per node, level by level."""
    min_split: int
    """A node with fewer documents of the corpus is its own only child."""
    max_share: float | None = None
    """Most that a domain shall have of its parent's documents; None: no leaf above five times the mean."""
    fit_documents: int | None = None
    """Documents of the sample, about; None: by `sample_size`."""
    seed: int = 0
    device: str = "cpu"
    """`cpu` for scikit-learn, `cuda` for torch."""


def sample_size(branching: tuple[int, ...]) -> int:
    """Documents that a tree is fitted on unless told otherwise: 128 per leaf, within bounds."""
    wanted = DOCUMENTS_PER_LEAF * math.prod(branching)
    return min(max(wanted, MIN_FIT_DOCUMENTS), MAX_FIT_DOCUMENTS)


def fit_corpus(
    store: WorkStore,
    options: FitOptions,
    *,
    advance: Callable[[int], None] = lambda documents: None,
) -> list[str]:
    """Fit the tree and publish it; returns what the user should know about it.

    Args:
        store: The work store, with the stages `read`, `dedupe`, `roles` and `embed` done.
        options: What to fit.
        advance: Called with the documents of the sample placed since the last call, once per level each.
    """
    documents = DocumentParts(store)
    roles = DocumentRoles(store, documents.part_offsets)
    num_corpus = sum(len(roles.corpus(part)) for part in range(documents.num_parts))
    wanted = options.fit_documents or sample_size(options.branching)
    with store.scratch() as folder:
        vectors = _gather(store, documents, roles, wanted / num_corpus, options.seed, folder)
        fitted = fit_sample(
            vectors,
            branching=options.branching,
            min_split=math.ceil(options.min_split * min(1.0, len(vectors) / num_corpus)),
            max_share=options.max_share,
            seed=options.seed,
            device=options.device,
            advance=advance,
        )
    for name, array in fitted.tree.arrays().items():
        store.publish_array(FIT + name, array)
    return unbalanced(fitted, options.max_share)


def load_tree(store: WorkStore) -> Tree:
    """The tree that `fit_corpus` published."""
    names = store.names(FIT)
    num_levels = sum(name.startswith(f"{FIT}centroids.") for name in names)
    return Tree.of(lambda name: store.array(FIT + name), num_levels)


def unbalanced(fitted: FittedSample, max_share: float | None) -> list[str]:
    """A line for each bound that the data did not allow to keep."""
    if max_share is not None:
        return [
            f"level {level}: a domain has {share:.1%} of its parent's documents, above --max-share "
            f"{max_share:.1%}: so many documents are almost equal that no split keeps them apart."
            for level, share in enumerate(fitted.largest_share, start=1)
            if share > max_share
        ]
    sizes = np.bincount(fitted.leaf)
    largest = float(sizes.max() / sizes.mean())
    if largest <= LARGEST_LEAF:
        return []
    return [
        f"the largest leaf has {largest:.1f} times the mean (bound: {LARGEST_LEAF:g}): so many documents are "
        "almost equal that no split keeps them apart. Look at it with `braidstream inspect`."
    ]


def _gather(
    store: WorkStore,
    documents: DocumentParts,
    roles: DocumentRoles,
    share: float,
    seed: int,
    folder: Path,
) -> NDArray[np.float16]:
    """Vectors of about this share of the corpus documents, at least one: float16 (n, dim), mapped."""
    embedded = EmbeddingParts(store)
    chosen = [_chosen(documents, roles, part, share, seed) for part in range(documents.num_parts)]
    if not any(map(len, chosen)):
        chosen = [roles.corpus(part)[:1] for part in range(documents.num_parts)]
    count = sum(map(len, chosen))
    vectors = np.memmap(
        folder / "sample.bin", dtype=np.float16, mode="w+", shape=(count, embedded.dimensions)
    )
    begin = 0
    for part, rows in enumerate(chosen):
        if len(rows):
            place = np.searchsorted(roles.kept(part), rows)
            vectors[begin : begin + len(rows)] = embedded.part(part)[place]
            begin += len(rows)
    return vectors


def _chosen(
    documents: DocumentParts, roles: DocumentRoles, part: int, share: float, seed: int
) -> NDArray[np.int64]:
    """Corpus rows of a part whose key is below the share of all keys."""
    rows = roles.corpus(part)
    if share >= 1:
        return rows
    keys = keyed(documents.digests(part)[rows, 0], seed=seed, purpose="fit")
    return rows[keys < np.uint64(int(share * 2.0**64))]
