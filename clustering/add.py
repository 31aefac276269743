"""`braidstream add`: new documents into the tree that is there, as a new version of the corpus.

Nothing is fitted again and no file of the corpus is touched: the documents that are new go down the tree, are
packed in leaf order into shards of their own, and a new manifest names what was there and what came. Work is
kept in CORPUS/.build/add until then, so that an interrupted addition goes on where it was.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clustering.add_config import AddConfig
from clustering.add_stages import AddStages
from clustering.config import WORK_FOLDER
from clustering.corpus.baseline import DISTANCES_FILE, distance_quantile
from clustering.engines.engine import Engine
from clustering.engines.engine_choice import chosen_engine
from clustering.errors import BuildError
from clustering.trees.assignment import assigned_name
from clustering.work.progress import Progress
from clustering.work.stages import StageRecord, Workspace
from clustering.work.work_store import SCRATCH
from pipeline import Corpus, open_corpus
from pipeline.corpus.manifest import Manifest
from pipeline.storage.storage import LocalStorage, read_array
from pipeline.stores.address import is_address

ADD_FOLDER = "add"
FAR_SHARE = 0.99
"""A document is far from its leaf when it is farther than this share of those the tree was built from."""
DRIFT_SHARE = 0.05
"""More far documents than this, five times what is to be expected, and the tree may no longer fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddReport:
    """What an addition did."""

    manifest: Manifest
    """Of the newest version: the one before when there was nothing new."""
    documents: int
    """New ones, which were added."""
    known: int
    """Left out: in the corpus, its held-out part or its target sets already, or twice among the new ones."""
    empty: int
    """Left out: nothing but white space."""
    skipped_input: int
    """Lines and files that could not be read."""
    examples_of_skipped: tuple[str, ...]
    far_share: float | None
    """Share of the new documents that are far from their leaf; None where the corpus does not say how far."""
    stages: tuple[StageRecord, ...]
    seconds: float
    """Of this run."""

    @property
    def has_drifted(self) -> bool:
        """Whether so many are far that the tree may no longer fit."""
        return self.far_share is not None and self.far_share > DRIFT_SHARE


def add(
    config: AddConfig, progress: Progress | None = None, engine: Engine | None = None
) -> AddReport:
    """Add documents to a corpus; continue after what an earlier run has finished.

    `engine` is the one that the options name, where none is given.

    Raises:
        InputError: The input cannot be found or read.
        ModelError: The corpus's embedding model is not here.
        BuildError: The corpus cannot be added to, or is being built or added to just now.
        CorpusError: The corpus is damaged, or changed under way.
    """
    started = time.monotonic()
    if is_address(config.corpus):
        raise BuildError(
            f"{config.corpus} is in an object store; documents are added to a local copy. Pull it, add to "
            "it, and push it again: only what was added is sent."
        )
    corpus = open_corpus(config.corpus)
    _check(corpus)
    build = Workspace(corpus.path / WORK_FOLDER, progress or Progress())
    engine = engine or chosen_engine(config)
    work = Workspace(build.folder / ADD_FOLDER, build.progress, engine=engine)
    with build.locked(), work.locked():
        corpus = open_corpus(config.corpus)  # another addition may have ended since
        stages = AddStages(config, corpus, work)
        manifest = stages.run()
        report = AddReport(
            manifest=manifest,
            documents=stages.num_new,
            known=stages.num_known,
            empty=stages.done["read"].facts["empty"],
            skipped_input=stages.done["read"].facts["skipped"],
            examples_of_skipped=tuple(stages.done["read"].facts["examples_of_skipped"]),
            far_share=_far_share(corpus, stages) if stages.num_new else None,
            stages=tuple(work.records),
            seconds=time.monotonic() - started,
        )
        _discard(work, build.folder / SCRATCH)
    return report


def _discard(work: Workspace, scratch: Path) -> None:
    """Remove the work at once: half of it would count as a finished stage whose files are missing."""
    scratch.mkdir(exist_ok=True)
    work.folder.rename(scratch / ADD_FOLDER)
    shutil.rmtree(scratch / ADD_FOLDER)


def _far_share(corpus: Corpus, stages: AddStages) -> float | None:
    """Share of the new documents that are farther from their leaf than `FAR_SHARE` of the original ones."""
    entry = next((e for e in corpus.manifest.extras if e.file == DISTANCES_FILE), None)
    if entry is None:
        return None
    far = distance_quantile(read_array(LocalStorage(corpus.path), entry), FAR_SHARE)
    parts = range(stages.documents.num_parts)
    distances = (stages.store.table(assigned_name(part))["distance"] for part in parts)
    count = sum(int(np.count_nonzero(part.to_numpy() > far)) for part in distances)
    return count / stages.num_new


def _check(corpus: Corpus) -> None:
    """Refuse what has no tree to go down, or no tokens to make."""
    manifest = corpus.manifest
    if manifest.sample is None or not manifest.tree.centroids or manifest.tokenizer is None:
        raise BuildError(
            f"{corpus.address} was imported: its domains are names that came with it, and a new document "
            "belongs to none of them by itself. Documents can be added to what `braidstream build` made."
        )
