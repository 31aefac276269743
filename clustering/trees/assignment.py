"""The stage `assign`: every document of the corpus goes down the tree.

assign/part-00000.arrow    one row per corpus document of part 0, in their order
    leaf: int32
    distance: float32      cosine distance to the leaf's centroid
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.embedding.embedding_parts import EmbeddingParts
from clustering.engines.engine import Device
from clustering.trees.descent import NumpyDescent, TorchDescent, one_thread
from clustering.trees.fitting import load_tree
from clustering.work.work_store import WorkStore


def assigned_name(part: int) -> str:
    """Name of a part's leaves in the work store."""
    return f"assign/part-{part:05}.arrow"


@dataclass(frozen=True, kw_only=True)
class AssignTask:
    """Assigns a part with one thread: with more, BLAS may add up in another order."""

    store: WorkStore
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        """See `UnitTask`."""
        import pyarrow as pa

        roles = self._roles
        rows = np.searchsorted(roles.kept(unit), roles.corpus(unit))
        with one_thread():
            leaf, distance = self._descent(EmbeddingParts(self.store).part(unit)[rows])
        table = pa.table({"leaf": leaf.astype(np.int32), "distance": distance})
        self.store.publish_table(assigned_name(unit), table)
        return len(rows)

    @cached_property
    def _roles(self) -> DocumentRoles:
        return DocumentRoles(self.store, DocumentParts(self.store).part_offsets)

    @cached_property
    def _descent(self) -> NumpyDescent | TorchDescent:
        tree = load_tree(self.store)
        if self.device == "cuda":
            return TorchDescent(tree.centroids, tree.parents, self.device)
        return NumpyDescent(tree.centroids, tree.parents)
