"""Documents of the corpus in leaf order: the first half of an external sort, in runs.

A run is a few consecutive parts, sorted as a whole: by leaf, in a leaf by keyed hash, so that files and
topics do not come in rows. The runs are never merged on disk; whoever writes shards takes a slice of each.

    order/keys-00000.npy     KEY (n,), ascending
    order/run-00000.arrow    the documents, in that order: leaf, document, distance, source, row, tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.documents.reading import PART_BYTES
from clustering.engines.engine import Device
from clustering.shards.token_parts import flat_tokens, tokens_name
from clustering.trees.assignment import assigned_name
from clustering.work.keyed_hash import keyed
from clustering.work.work_store import WorkStore

KEY = np.dtype([("leaf", "<i8"), ("key", "<u8"), ("document", "<i8"), ("length", "<i8")])
"""Where a document comes, and its tokens, separator included."""
BATCH_ROWS = 1_024


def parts_per_run(sort_bytes: int) -> int:
    """How many parts are sorted together in about `sort_bytes` of memory."""
    return max(1, sort_bytes // PART_BYTES)


def keys_name(run: int) -> str:
    """Name of a run's keys in the work store."""
    return f"order/keys-{run:05}.npy"


def run_name(run: int) -> str:
    """Name of a run in the work store."""
    return f"order/run-{run:05}.arrow"


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderTask:
    """Sorts the corpus documents of the parts of a run."""

    store: WorkStore
    seed: int
    parts_per_run: int
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        """See `UnitTask`."""
        import pyarrow as pa

        documents = DocumentParts(self.store)
        roles = DocumentRoles(self.store, documents.part_offsets)
        first = unit * self.parts_per_run
        last = min(first + self.parts_per_run, documents.num_parts)
        parts = [self._part(part, documents, roles) for part in range(first, last)]
        keys: NDArray[Any] = np.concatenate([keys for keys, _ in parts])
        order = np.lexsort((keys["document"], keys["key"], keys["leaf"]))
        table = pa.concat_tables([table for _, table in parts]).combine_chunks()
        self.store.publish_array(keys_name(unit), keys[order])
        # Batch by batch: of a list column Arrow's `take` makes an int64 for every value.
        batches = [
            table.take(order[begin : begin + BATCH_ROWS])
            for begin in range(0, max(1, len(order)), BATCH_ROWS)
        ]
        ordered = pa.concat_tables(batches)
        self.store.publish_table(run_name(unit), ordered, batch_rows=BATCH_ROWS)
        return len(order)

    def _part(
        self, part: int, documents: DocumentParts, roles: DocumentRoles
    ) -> tuple[NDArray[Any], Any]:
        """Keys and columns of the corpus documents of a part, in the order of the part."""
        import pyarrow as pa

        rows = roles.corpus(part)
        tokens = self.store.table(tokens_name(part))["tokens"].combine_chunks()
        tokens = tokens.take(np.searchsorted(roles.kept(part), rows))
        assigned = self.store.table(assigned_name(part))
        keys = np.empty(len(rows), dtype=KEY)
        keys["leaf"] = assigned["leaf"].to_numpy()
        keys["key"] = keyed(documents.digests(part)[rows, 0], seed=self.seed, purpose="leaf order")
        keys["document"] = documents.part_offsets[part] + rows
        keys["length"] = flat_tokens(tokens)[2] + 1
        places = documents.part(part).select(["source", "row"]).take(rows)
        columns = {
            "leaf": assigned["leaf"],
            "document": keys["document"],
            "distance": assigned["distance"],
            "source": places["source"],
            "row": places["row"],
            "tokens": tokens,
        }
        return keys, pa.table(columns)
