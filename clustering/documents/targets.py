"""Specialised target sets: their documents, and where in the tree they lie.

    targets/NAME.train.arrow, targets/NAME.test.arrow    text, digest

A target set is small, what the owner of a task has: unlike the corpus it is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.config import TargetSource
from clustering.documents.inputs import find_inputs
from clustering.documents.readers import read_documents
from clustering.documents.records import BadInput
from clustering.errors import BuildError, InputError
from clustering.trees.tree import Tree
from clustering.work.keyed_hash import text_digest
from clustering.work.work_store import WorkStore

ADVANCE_DOCUMENTS = 256


class TargetDocuments:
    """One part, `train` or `test`, of one target set, as `read_targets` left it."""

    def __init__(self, store: WorkStore, name: str, part: str) -> None:
        table = store.table(_table(name, part))
        self.texts: list[str] = table["text"].to_pylist()
        raw = b"".join(table["digest"].to_pylist())
        self.digests: NDArray[np.uint64] = np.frombuffer(raw, dtype="<u8").reshape(-1, 2)
        """uint64 (n, 2)."""

    def __len__(self) -> int:
        return len(self.texts)


def target_identity(target: TargetSource, bad: BadInput) -> list[Any]:
    """What changes when a target set or one of its files does.

    Raises:
        InputError: A part of it has no files, or a folder that cannot be listed where `bad` says fail.
    """
    files = [target.train] if target.test is None else [target.train, target.test]
    try:
        return [target.name, *([file.identity for file in find_inputs(f, bad)] for f in files)]
    except InputError as error:
        raise InputError(f"--target {target.name}: {error}") from None


def read_targets(
    targets: Sequence[TargetSource],
    store: WorkStore,
    *,
    text_column: str | None,
    bad: BadInput,
    advance: Callable[[int], None],
) -> dict[str, dict[str, int]]:
    """Read every target set into the work store.

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
            read, kept, skipped = 0, [], bad.skipped
            for text in _texts(files, text_column, bad):
                read += 1
                if read % ADVANCE_DOCUMENTS == 0:
                    advance(ADVANCE_DOCUMENTS)
                digest = text_digest(text)
                if text and not text.isspace() and digest not in known:
                    known.add(digest)
                    kept.append((text, digest))
            advance(read % ADVANCE_DOCUMENTS)
            if not kept:
                raise BuildError(
                    f"the {part} part of target {target.name!r} ({files}) has no document that counts: "
                    f"{read:,} read, all of them empty or seen before, and {bad.skipped - skipped:,} "
                    "skipped. A target set needs text; check the file."
                )
            _publish(store, _table(target.name, part), kept)
            counts[target.name][part] = len(kept)
            counts[target.name]["dropped"] += read - len(kept)
    return counts


def _texts(files: str, text_column: str | None, bad: BadInput) -> Iterator[str]:
    for file in find_inputs(files, bad):
        for document in read_documents(file, text_column=text_column, bad=bad):
            yield document.text


def _publish(store: WorkStore, name: str, documents: Sequence[tuple[str, bytes]]) -> None:
    import pyarrow as pa

    texts = pa.array([text for text, _ in documents], pa.large_string())
    digests = pa.array([digest for _, digest in documents], pa.binary(16))
    store.publish_table(name, pa.table({"text": texts, "digest": digests}))


def _table(name: str, part: str) -> str:
    return f"targets/{name}.{part}.arrow"


def target_digests(targets: Sequence[TargetSource], store: WorkStore) -> NDArray[np.uint64]:
    """Digests of all documents of all target sets: uint64 (m, 2)."""
    digests = [np.empty((0, 2), dtype=np.uint64)]
    for target in targets:
        digests.append(TargetDocuments(store, target.name, "train").digests)
        if target.test is not None:
            digests.append(TargetDocuments(store, target.name, "test").digests)
    return np.concatenate(digests)


def leaf_histogram(
    tree: Tree, leaves: NDArray[np.int64], tokens: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of a target's train tokens per leaf.

    Args:
        tree: The tree its documents went down.
        leaves: int64 (n,): the leaf of each.
        tokens: int64 (n,): tokens of each, separator included.

    Returns:
        float64 (num_leaves,), sums to 1.
    """
    weights = np.bincount(leaves, weights=tokens, minlength=tree.num_leaves)
    share: NDArray[np.float64] = weights / weights.sum()
    return share
