"""What a build leaves in the corpus so that documents can be added later, when its work folder is gone.

    tree/digests.npy         uint64 (n,), ascending: texts of the corpus, its held-out part and its targets
    tree/distances.npy       int64 (2000,): documents by cosine distance to their leaf, in bins of 0.001
    embedder/static-model/   the embedding model, where it was distilled for this very corpus

An addition leaves digests of its own in its segment.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.work.external_sort import ExternalSort
from pipeline.corpus.manifest import FileEntry, Manifest, file_entry

DIGESTS_FILE = "tree/digests.npy"
DISTANCES_FILE = "tree/distances.npy"
EMBEDDER_FOLDER = "embedder"
STATIC_MODEL = "static-model"
_RECORD = np.dtype([("digest", "<u8")])
_SORT_BYTES = 64 * 2**20
_BINS = 2_000
_FARTHEST = 2.0
"""Cosine distance of opposite directions."""


def write_baseline(
    corpus: Path,
    *,
    digests: Iterable[NDArray[np.uint64]],
    distances: Iterable[NDArray[np.float32]],
    static_model: Path | None,
    scratch: Path,
) -> tuple[FileEntry, ...]:
    """Write the files above into the folder `corpus` and describe them.

    Args:
        corpus: The corpus folder, which has a folder `tree`.
        digests: The first 8 bytes of the digest of every text as numbers, in any portions and order.
        distances: Cosine distances of the corpus's documents to their leaves' centroids, likewise.
        static_model: Folder of the model that was distilled for this corpus; None for any other model.
        scratch: A folder that is removed afterwards.
    """
    write_digests(corpus / DIGESTS_FILE, digests, scratch)
    np.save(corpus / DISTANCES_FILE, distance_counts(distances))
    entries = [file_entry(corpus, DIGESTS_FILE), file_entry(corpus, DISTANCES_FILE)]
    shutil.rmtree(corpus / EMBEDDER_FOLDER, ignore_errors=True)
    if static_model is not None:
        kept = corpus / EMBEDDER_FOLDER / STATIC_MODEL
        shutil.copytree(static_model, kept)
        files = sorted(path for path in kept.rglob("*") if path.is_file())
        entries += [file_entry(corpus, path.relative_to(corpus).as_posix()) for path in files]
    return tuple(entries)


def write_digests(path: Path, digests: Iterable[NDArray[np.uint64]], scratch: Path) -> None:
    """Write the digests, sorted on disk, in the folder `scratch`: there may be more than fit the memory."""
    count = 0
    ascending = ExternalSort(scratch / "digests", _RECORD, memory_bytes=_SORT_BYTES)
    for portion in digests:
        ascending.add(np.ascontiguousarray(portion).view(_RECORD))
        count += len(portion)
    npy: Any = np.lib.format
    written = npy.open_memmap(path, mode="w+", dtype=np.uint64, shape=(count,))
    begin = 0
    for chunk in ascending.chunks():
        written[begin : begin + len(chunk)] = chunk["digest"]
        begin += len(chunk)
    written.flush()


def read_digests(corpus: Path, manifest: Manifest) -> Iterator[NDArray[np.uint64]]:
    """The digests of the build and of each addition, mapped; none of a corpus that has none."""
    for entry in manifest.extras:
        if entry.file.endswith(DIGESTS_FILE):
            yield np.load(corpus / entry.file, mmap_mode="r")


def distance_counts(distances: Iterable[NDArray[np.float32]]) -> NDArray[np.int64]:
    """How many distances fall into each bin: int64 (2000,)."""
    counts = np.zeros(_BINS, dtype=np.int64)
    for portion in distances:
        bins = (np.clip(portion, 0, _FARTHEST) * (_BINS / _FARTHEST)).astype(np.int64)
        counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
    return counts


def distance_quantile(counts: NDArray[np.int64], share: float) -> float:
    """The distance that at least `share` of the counted documents do not exceed."""
    bins = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return (bins + 1) * _FARTHEST / _BINS
