"""Specialised target sets: their documents, and where in the tree they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.config import TargetSource
from clustering.documents import DocumentStore, ingest
from clustering.errors import BuildError
from clustering.inputs import find_inputs
from clustering.records import BadInput
from clustering.tree import Tree


def target_identity(target: TargetSource) -> list[Any]:
    """What changes when a target set or one of its files does."""
    files = [target.train] if target.test is None else [target.train, target.test]
    return [target.name, *([file.identity for file in find_inputs(f)] for f in files)]


def read_targets(
    targets: Sequence[TargetSource],
    folder: Path,
    *,
    text_column: str | None,
    bad: BadInput,
    part_documents: int,
    advance: Callable[[int], None],
) -> dict[str, dict[str, int]]:
    """Read every target set into `FOLDER/NAME.train` and `FOLDER/NAME.test`.

    Empty documents and duplicates go, and so do test documents that are in the train part: a test
    on what was trained on measures nothing.

    Returns:
        Counts per target: train, test, dropped.

    Raises:
        BuildError: A part of a target set is empty.
    """
    counts: dict[str, dict[str, int]] = {}
    for target in targets:
        known: set[bytes] = set()
        counts[target.name] = {"train": 0, "test": 0, "dropped": 0}
        for part, files in (("train", target.train), ("test", target.test)):
            if files is None:
                continue
            part_folder = folder / f"{target.name}.{part}"
            part_folder.mkdir(exist_ok=True)
            ingested = ingest(
                find_inputs(files),
                part_folder,
                text_column=text_column,
                bad=bad,
                part_documents=part_documents,
                known=known,
                advance=advance,
            )
            if ingested.documents == 0:
                raise BuildError(
                    f"the {part} part of target {target.name!r} ({files}) has no document that counts: "
                    f"{ingested.read:,} read, {ingested.empty:,} empty, {ingested.duplicates:,} seen before. "
                    "A target set needs text; check the file."
                )
            counts[target.name][part] = ingested.documents
            counts[target.name]["dropped"] += ingested.empty + ingested.duplicates
    return counts


def target_digests(targets: Sequence[TargetSource], folder: Path) -> NDArray[np.uint64]:
    """Digests of all documents of all target sets: uint64 (m, 2)."""
    digests = [np.empty((0, 2), dtype=np.uint64)]
    for target in targets:
        digests.append(DocumentStore(folder / f"{target.name}.train").digests)
        if target.test is not None:
            digests.append(DocumentStore(folder / f"{target.name}.test").digests)
    return np.concatenate(digests)


def leaf_histogram(
    tree: Tree, vectors: NDArray[np.float32], tokens: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of a target's train tokens per leaf.

    Args:
        tree: The tree its documents go down.
        vectors: float32 (n, dim), unit norm: the documents.
        tokens: int64 (n,): tokens of each, separator included.

    Returns:
        float64 (num_leaves,), sums to 1.
    """
    weights = np.bincount(tree.assign(vectors), weights=tokens, minlength=tree.num_leaves)
    share: NDArray[np.float64] = weights / weights.sum()
    return share
