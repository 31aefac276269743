"""How far the documents that stand for leaves are from the centers of the coarser domains they are in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clustering.cards.leaf_facts import LeafFacts
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.embedding.embedding_parts import EmbeddingParts
from clustering.trees.tree import Tree
from clustering.work.work_store import WorkStore

VECTORS_PER_READ = 16_384


class CenterDistances:
    """Cosine distances to centers, for every level of the tree.

    The center of the root, which has no centroid, is the mean of the domains of the first level, each
    weighing as much as its documents.
    """

    def __init__(
        self, store: WorkStore, documents: DocumentParts, tree: Tree, facts: LeafFacts
    ) -> None:
        rows = facts.standing
        bounds = [tree.leaf_bounds(level) for level in range(len(tree.levels))]
        sizes = np.diff(np.append(0, np.cumsum(facts.documents))[bounds[1]])
        root = sizes @ tree.centroids[0].astype(np.float64)
        root /= max(float(np.linalg.norm(root)), 1e-12)
        centers = [root[None].astype(np.float32), *tree.centroids[:-1]]
        domains = [np.searchsorted(b, rows["leaf"], side="right") - 1 for b in bounds[:-1]]
        self._coarse = np.empty((len(centers), len(rows)), dtype=np.float32)
        self._leaf: NDArray[np.float32] = rows["distance"]
        embeddings = EmbeddingParts(store)
        roles = DocumentRoles(store, documents.part_offsets)
        by_document = np.argsort(rows["document"])
        for begin in range(0, len(rows), VECTORS_PER_READ):
            here = by_document[begin : begin + VECTORS_PER_READ]
            vectors = embeddings.rows(rows["document"][here], documents, roles).astype(np.float32)
            for level, (center, domain) in enumerate(zip(centers, domains, strict=True)):
                self._coarse[level, here] = 1 - (vectors * center[domain[here]]).sum(axis=1)

    def at(self, level: int) -> NDArray[np.float32]:
        """float32 (n,): of the documents in `standing`, each to the center of its domain of a level."""
        return self._leaf if level == len(self._coarse) else self._coarse[level]
