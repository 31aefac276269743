"""The stages that turn documents into vectors: a unit is a part, a worker holds the model.

    static-model/    the static model, when it is the chosen one: distilled once, for all workers
    embed/           the vectors (embedding_parts.py)
    embed-targets/   vectors of the targets' train documents: NAME-000.npy, float16 (n, dim), of the first 512

None but the workers need the GPU. A part's vectors follow from its documents and the model. The threads of a
CPU share the work inside a batch: 1, 2 and 3 of them gave the same bits for MiniLM, but no library promises
that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.documents.targets import TargetDocuments
from clustering.embedding.embedder import Embedder, EmbedderChoice, distill_static, open_embedder
from clustering.embedding.embedding_parts import part_name, publish_vectors
from clustering.embedding.transformer_embedder import WINDOW
from clustering.engines.engine import Device
from clustering.work.keyed_hash import keyed
from clustering.work.smallest_keys import SmallestKeys
from clustering.work.work_store import WorkStore, open_work

STATIC_MODEL = "static-model"
STATIC_MARKER = f"{STATIC_MODEL}/modules.json"
"""Published last."""
STATIC_SAMPLE_DOCUMENTS = 2_000
"""A static model is centered on this many documents of the corpus."""
PIECE_DOCUMENTS = 512
"""Documents of a target set that are embedded together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedTask:
    """Embeds the kept documents of a part."""

    store: WorkStore
    choice: EmbedderChoice
    place: str
    """Where the model runs: cpu, cuda (each worker has a GPU), or one device that all share (cuda:1, mps)."""

    @property
    def device(self) -> Device:
        """See `UnitTask`."""
        return _device(self.choice, self.place)

    def __call__(self, unit: int) -> int:
        """See `UnitTask`."""
        return sum(self.steps(unit))

    def steps(self, unit: int) -> Iterator[int]:
        """See `SteppedTask`."""
        documents = DocumentParts(self.store)
        kept = DocumentRoles(self.store, documents.part_offsets).kept(unit)
        texts = documents.part(unit)["text"].take(kept).to_pylist()
        names = documents.ids(unit)
        embedder = stored_embedder(self.store, self.choice, self.place)
        # A GPU does a part in a second, and faster when the model may tokenize the next window meanwhile.
        size = WINDOW if self.place == "cpu" else max(1, len(texts))
        vectors = [embedder.embed([])]
        for begin in range(0, len(texts), size):
            vectors.append(embedder.embed(texts[begin : begin + size]))
            yield len(vectors[-1])
        ids = [names[row] for row in kept]
        publish_vectors(self.store, part_name(unit), ids, np.concatenate(vectors))


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedTargetsTask:
    """Embeds a piece of the train documents of a target set."""

    store: WorkStore
    choice: EmbedderChoice
    place: str
    """See `EmbedTask`."""
    pieces: tuple[tuple[str, int], ...]
    """Of each unit: name of the target, number of the piece."""

    @property
    def device(self) -> Device:
        """See `UnitTask`."""
        return _device(self.choice, self.place)

    def __call__(self, unit: int) -> int:
        """See `UnitTask`."""
        name, piece = self.pieces[unit]
        first = piece * PIECE_DOCUMENTS
        texts = TargetDocuments(self.store, name, "train").texts[first : first + PIECE_DOCUMENTS]
        vectors = stored_embedder(self.store, self.choice, self.place).embed(texts)
        self.store.publish_array(piece_name(name, piece), vectors.astype(np.float16))
        return len(texts)


def piece_name(target: str, piece: int) -> str:
    """Name of the vectors of a piece of a target set."""
    return f"embed-targets/{target}-{piece:03}.npy"


def target_pieces(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The pieces of target sets of so many documents."""
    return tuple(
        (name, piece)
        for name, count in counts.items()
        for piece in range(-(-count // PIECE_DOCUMENTS))
    )


def _device(choice: EmbedderChoice, place: str) -> Device:
    """A static model runs on the CPU: it does nothing but look up."""
    return "cuda" if place == "cuda" and not choice.is_static else "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillTask:
    """Distils the static model, in one unit."""

    store: WorkStore
    choice: EmbedderChoice
    place: str
    """See `EmbedTask`."""

    @property
    def device(self) -> Device:
        """See `UnitTask`."""
        return "cuda" if self.place == "cuda" else "cpu"

    def __call__(self, unit: int) -> int:
        """See `UnitTask`; what is counted is the model."""
        prepare_static(self.store, self.choice, self.place)
        return 1


def prepare_static(store: WorkStore, choice: EmbedderChoice, place: str) -> None:
    """Distil the static model for the corpus, unless it is there.

    It is centered on a sample of the kept documents that no order of files changes.

    Raises:
        ModelError: The model that it is distilled from is not here.
    """
    if store.exists(STATIC_MARKER):
        return
    documents = DocumentParts(store)
    roles = DocumentRoles(store, documents.part_offsets)
    sample = SmallestKeys(STATIC_SAMPLE_DOCUMENTS)
    for part in range(documents.num_parts):
        kept = roles.kept(part)
        keys = keyed(documents.digests(part)[kept, 0], seed=0, purpose="static model")
        sample.add(keys, documents.part_offsets[part] + kept)
    with store.scratch() as scratch, _one_thread():
        folder = scratch / STATIC_MODEL
        texts = documents.texts(np.sort(sample.documents()))
        distill_static(choice, device=place, texts=texts, folder=folder)
        names = [
            path.relative_to(scratch).as_posix() for path in folder.rglob("*") if path.is_file()
        ]
        for name in sorted(names, key=lambda name: (name == STATIC_MARKER, name)):
            store.publish_file(name, scratch / name)


def stored_embedder(store: WorkStore, choice: EmbedderChoice, place: str) -> Embedder:
    """The chosen model, loaded once per process; the static one as it is in the store.

    Raises:
        ModelError: The model, or a package it needs, is not here; says what to install or pass.
    """
    return _stored_embedder(store.address, choice, place)


def forget_embedder() -> None:
    """Load the model anew when it is needed next: an earlier build in this process may have had another."""
    _stored_embedder.cache_clear()


@lru_cache(maxsize=1)
def _stored_embedder(address: str, choice: EmbedderChoice, place: str) -> Embedder:
    store = open_work(address)
    with store.scratch() as scratch:
        folder = scratch / STATIC_MODEL
        for name in store.names(f"{STATIC_MODEL}/") if choice.is_static else ():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            store.copy_to(name, path)
        return open_embedder(choice, device=place, static_folder=folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
