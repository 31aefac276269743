"""The stage `describe`: what every part knows about every leaf, so that cards need no array of all documents.

    describe/counts-00000.arrow    one row per leaf and source file that occur in part 0
        leaf, source: int32; documents, tokens, copies: int64
    describe/part-00000.arrow      documents of part 0 that may stand for their leaf; published last
        leaf: int32, key: uint64, document: int64, distance: float32, source: int32

A document may stand for its leaf when it is among the nearest to the centroid, the farthest, or among those
with the smallest keyed hashes. That holds of a whole corpus only for documents of which it holds in their
part: `standing` over the rows of all parts gives the same documents, however the parts were cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards.terms import documents_per_leaf
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.engines.engine import Device
from clustering.shards.token_parts import flat_tokens, tokens_name
from clustering.trees.assignment import assigned_name
from clustering.work.keyed_hash import keyed
from clustering.work.work_store import WorkStore

NUM_NEAREST = 3
ROW = np.dtype(
    [
        ("leaf", "<i4"),
        ("key", "<u8"),
        ("document", "<i8"),
        ("distance", "<f4"),
        ("source", "<i4"),
    ]
)


def counts_name(part: int) -> str:
    """Name of a part's counts in the work store."""
    return f"describe/counts-{part:05}.arrow"


def described_name(part: int) -> str:
    """Name of a part's representatives in the work store."""
    return f"describe/part-{part:05}.arrow"


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeTask:
    """Counts the corpus documents of a part by leaf, and finds those that may stand for their leaves."""

    store: WorkStore
    num_leaves: int
    seed: int
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        """See `UnitTask`."""
        documents = DocumentParts(self.store)
        roles = DocumentRoles(self.store, documents.part_offsets)
        corpus = roles.corpus(unit)
        assigned = self.store.table(assigned_name(unit))
        rows = np.empty(len(corpus), dtype=ROW)
        rows["leaf"] = assigned["leaf"].to_numpy()
        rows["key"] = keyed(documents.digests(unit)[corpus, 0], seed=self.seed, purpose="cards")
        rows["document"] = documents.part_offsets[unit] + corpus
        rows["distance"] = assigned["distance"].to_numpy()
        rows["source"] = documents.part(unit)["source"].take(corpus).to_numpy()
        lengths = flat_tokens(self.store.table(tokens_name(unit))["tokens"])[2]
        tokens = lengths[np.searchsorted(roles.kept(unit), corpus)]
        copies = roles.copies(unit)[corpus].astype(np.int64)
        self.store.publish_table(counts_name(unit), _counted(rows, tokens, copies))
        chosen = standing(rows, documents_per_leaf(self.num_leaves))
        self.store.publish_table(described_name(unit), _table(chosen, ROW))
        return len(corpus)


def standing(rows: NDArray[Any], sample: int) -> NDArray[Any]:
    """Those of ROW (n,) that may stand for their leaves, by (leaf, key, document).

    Args:
        rows: Documents.
        sample: How many of each leaf are taken by key.
    """
    rows = rows[np.lexsort((rows["document"], rows["key"], rows["leaf"]))]
    kept = ranks(rows["leaf"]) < sample
    by_distance = np.lexsort((rows["document"], rows["distance"], rows["leaf"]))
    leaf = rows["leaf"][by_distance]
    is_last = np.ones(len(leaf), dtype=np.bool_)
    is_last[:-1] = leaf[1:] != leaf[:-1]
    kept[by_distance[(ranks(leaf) < NUM_NEAREST) | is_last]] = True
    return rows[kept]


def ranks(leaf: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each row among those of its leaf; `leaf` (n,) ascends."""
    return np.arange(len(leaf)) - np.searchsorted(leaf, leaf)


def _counted(rows: NDArray[Any], tokens: NDArray[np.int64], copies: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    pairs = np.stack([rows["leaf"], rows["source"]], axis=1)
    unique, pair = np.unique(pairs, axis=0, return_inverse=True)
    sums = {
        "documents": np.ones(len(rows), dtype=np.int64),
        "tokens": tokens,
        "copies": copies,
    }
    columns = {"leaf": unique[:, 0], "source": unique[:, 1]}
    for name, values in sums.items():
        columns[name] = np.zeros(len(unique), dtype=np.int64)
        np.add.at(columns[name], pair.ravel(), values)
    return pa.table(columns)


def _table(rows: NDArray[Any], dtype: np.dtype[Any]) -> Any:
    import pyarrow as pa

    return pa.table({name: np.ascontiguousarray(rows[name]) for name in dtype.names or ()})
