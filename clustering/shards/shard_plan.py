"""Which documents go into which shards: the second half of the external sort, over keys alone.

Write unit g takes the tokens [g*T, (g+1)*T) of the stream of all documents in leaf order, each followed by
the separator. T is a whole number of shards, so units write their shards without knowing of each other;
the document that crosses their border is read by both.

    plan/leaf_tokens.npy       int64 (num_leaves,): separators included
    plan/leaf_documents.npy    int64 (num_leaves,)
    plan/units.npy             UNIT (g,)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.shards.leaf_order import KEY, keys_name
from clustering.work.external_sort import ExternalSort
from clustering.work.work_store import WorkStore

LEAF_TOKENS = "plan/leaf_tokens.npy"
LEAF_DOCUMENTS = "plan/leaf_documents.npy"
UNITS = "plan/units.npy"

UNIT = np.dtype(
    [
        ("first", KEY),  # the document that holds the unit's first token
        ("last", KEY),  # ... and the one that holds its last
        ("skip", "<i8"),  # tokens of the first document that belong to the unit before
        ("tokens", "<i8"),
    ]
)


def plan_shards(
    store: WorkStore, *, num_runs: int, num_leaves: int, unit_tokens: int, sort_bytes: int
) -> None:
    """Publish the plan.

    Args:
        store: The work store, with the runs in it.
        num_runs: How many there are.
        num_leaves: Leaves of the tree.
        unit_tokens: Tokens per write unit: whole shards.
        sort_bytes: What sorting may take.
    """
    leaf_tokens = np.zeros(num_leaves, dtype=np.int64)
    leaf_documents = np.zeros(num_leaves, dtype=np.int64)
    first: list[tuple[Any, int]] = []
    last: list[Any] = []
    total, final = 0, None
    with store.scratch() as scratch:
        keys = ExternalSort(scratch / "keys", KEY, memory_bytes=sort_bytes)
        for run in range(num_runs):
            keys.add(store.array(keys_name(run)))
        for chunk in keys.chunks():
            np.add.at(leaf_tokens, chunk["leaf"], chunk["length"])
            np.add.at(leaf_documents, chunk["leaf"], 1)
            ends = total + np.cumsum(chunk["length"])
            for token in _multiples(unit_tokens, total, int(ends[-1])):
                place = int(np.searchsorted(ends, token, side="right"))
                skip = token - int(ends[place] - chunk["length"][place])
                first.append((chunk[place].copy(), skip))  # a view would keep its chunk in memory
            for token in _multiples(unit_tokens, total + 1, int(ends[-1]) + 1):
                last.append(chunk[int(np.searchsorted(ends, token, side="left"))].copy())
            total, final = int(ends[-1]), chunk[-1].copy()
    if len(last) < len(first):
        last.append(final)
    units = np.empty(len(first), dtype=UNIT)
    for number, ((record, skip), end) in enumerate(zip(first, last, strict=True)):
        units[number] = (record, end, skip, min(unit_tokens, total - number * unit_tokens))
    store.publish_array(LEAF_TOKENS, leaf_tokens)
    store.publish_array(LEAF_DOCUMENTS, leaf_documents)
    store.publish_array(UNITS, units)


def _multiples(step: int, begin: int, end: int) -> range:
    """Multiples of `step` in [begin, end)."""
    return range(-(-begin // step) * step, end, step)


def slice_of_run(keys: NDArray[Any], unit: Any) -> tuple[int, int]:
    """Which rows of a run, whose KEYs (n,) are given, a UNIT takes: from, up to but not including."""
    begin = np.searchsorted(keys, unit["first"], side="left")
    return int(begin), int(np.searchsorted(keys, unit["last"], side="right"))
