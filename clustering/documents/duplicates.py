"""Exact duplicates, found by sorting digests on disk: of equal texts the first stays.

dedupe/copies.npy    uint32 (n,): how often the text of a document occurs; 0 for all but its first
                     occurrence, and for documents outside the sample of --max-documents
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.document_parts import DocumentParts
from clustering.work.external_sort import ExternalSort
from clustering.work.keyed_hash import keyed
from clustering.work.smallest_keys import SmallestKeys
from clustering.work.work_store import WorkStore

COPIES = "dedupe/copies.npy"
SORT_BYTES = 256 * 2**20

_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<i8")])


def find_duplicates(
    store: WorkStore, documents: DocumentParts, *, max_documents: int | None, seed: int
) -> dict[str, int]:
    """Publish `COPIES`; returns how many documents are `duplicates` and how many `remain`."""
    with store.scratch() as folder:
        # A file, not memory: 4 bytes for every document there is.
        copies = np.memmap(
            folder / "copies.bin", dtype=np.uint32, mode="w+", shape=(max(1, len(documents)),)
        )[: len(documents)]
        unique = _count_copies(documents, folder, copies)
        remain = unique
        if max_documents is not None and max_documents < unique:
            _thin(documents, copies, max_documents, seed)
            remain = max_documents
        store.publish_array(COPIES, copies)
    return {"duplicates": len(documents) - unique, "remain": remain}


def _count_copies(documents: DocumentParts, folder: Path, copies: NDArray[np.uint32]) -> int:
    """Fill in `copies`; returns the number of different texts."""
    digests = ExternalSort(folder / "digests", _RECORD, memory_bytes=SORT_BYTES)
    for part in range(documents.num_parts):
        part_digests = documents.digests(part)
        records = np.empty(len(part_digests), dtype=_RECORD)
        records["high"], records["low"] = part_digests[:, 0], part_digests[:, 1]
        records["document"] = documents.part_offsets[part] + np.arange(len(records))
        digests.add(records)
    unique, last = 0, None
    for chunk in digests.chunks():
        # A text may go on from the chunk before: then its count goes to the document found there.
        is_first = np.ones(len(chunk), dtype=bool)
        is_first[1:] = _differs(chunk[1:], chunk[:-1])
        goes_on = last is not None and not _differs(chunk[:1], last)[0]
        is_first[0] = not goes_on
        starts = np.flatnonzero(is_first)
        if goes_on:
            assert last is not None
            until = int(starts[0]) if len(starts) else len(chunk)
            copies[last["document"][0]] += until
        if len(starts):
            copies[chunk["document"][starts]] = np.diff(np.append(starts, len(chunk)))
            last = chunk[starts[-1] : starts[-1] + 1].copy()
        unique += len(starts)
    return unique


def _differs(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    differs: NDArray[np.bool_] = (a["high"] != b["high"]) | (a["low"] != b["low"])
    return differs


def _thin(
    documents: DocumentParts, copies: NDArray[np.uint32], max_documents: int, seed: int
) -> None:
    """Keep the documents with the smallest keyed hash: a sample that no order of files changes."""
    sample = SmallestKeys(max_documents)
    for part in range(documents.num_parts):
        begin, end = documents.part_offsets[part : part + 2]
        kept = np.flatnonzero(copies[begin:end])
        keys = keyed(documents.digests(part)[kept, 0], seed=seed, purpose="sample")
        sample.add(keys, begin + kept)
    chosen = np.sort(sample.documents())
    counts = copies[chosen]
    copies[:] = 0
    copies[chosen] = counts
