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
from typing import Any

import numpy as np

from clustering.add_config import AddConfig
from clustering.added_documents import AddedDocuments, PartMaker, make_parts
from clustering.added_segment import write_segment
from clustering.baseline import DISTANCES_FILE, distance_quantile, read_digests
from clustering.corpus_models import corpus_tokenizer, corpus_tree, recorded_embedder
from clustering.errors import BuildError
from clustering.inputs import InputFile, find_inputs
from clustering.known_texts import KnownTexts
from clustering.progress import Progress
from clustering.records import BadInput
from clustering.stages import StageRecord, Workspace, published
from pipeline import Corpus, open_corpus
from pipeline.address import is_address
from pipeline.manifest import Manifest
from pipeline.places import LocalPlace
from pipeline.segments import appended, segment_folder
from pipeline.storage import LocalStorage, read_array
from pipeline.versions import publish_version

WORK_FOLDER = ".build"
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


def add(config: AddConfig, progress: Progress | None = None) -> AddReport:
    """Add documents to a corpus; continue after what an earlier run has finished.

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
    with build.locked():
        work = Workspace(build.folder / ADD_FOLDER, build.progress)
        report = _Addition(config, corpus, work).run(started)
        shutil.rmtree(work.folder)
    return report


class _Addition:
    """The flow of one addition: each method is a stage, in the order of the file."""

    def __init__(self, config: AddConfig, corpus: Corpus, work: Workspace) -> None:
        self.config = config
        self.corpus = corpus
        self.work = work
        self.files = _named_apart([find_inputs(texts) for texts in config.texts])

    def run(self, started: float) -> AddReport:
        facts, folder, key = self.read_and_embed()
        documents = AddedDocuments(folder)
        manifest = self.append(documents, facts, key) if len(documents) else self.corpus.manifest
        return AddReport(
            manifest=manifest,
            documents=len(documents),
            known=facts["known"],
            empty=facts["empty"],
            skipped_input=facts["skipped"],
            examples_of_skipped=tuple(facts["examples_of_skipped"]),
            far_share=self.far_share(documents),
            stages=tuple(self.work.records),
            seconds=time.monotonic() - started,
        )

    def read_and_embed(self) -> tuple[dict[str, Any], Path, str]:
        """Files to new documents in their leaves."""
        config, manifest = self.config, self.corpus.manifest
        depends_on = {
            "corpus": self.corpus.fingerprint,
            "files": [file.identity for file in self.files],
            "options": [config.text_column, config.on_bad_input, config.part_documents],
        }
        with self.work.stage(
            "documents", unit="documents", total=None, depends_on=depends_on
        ) as stage:
            if stage.todo:
                bad = BadInput(action=config.on_bad_input)
                counts = make_parts(
                    self.files,
                    stage.folder,
                    PartMaker(
                        embedder=recorded_embedder(
                            self.corpus, model=config.model, device=config.device
                        ),
                        tree=corpus_tree(self.corpus),
                        tokenizer=corpus_tokenizer(self.corpus),
                    ),
                    known=KnownTexts(read_digests(self.corpus.path, manifest)),
                    text_column=config.text_column,
                    bad=bad,
                    part_documents=config.part_documents,
                    advance=stage.advance,
                )
                stage.facts |= {"known": counts.known, "empty": counts.empty}
                stage.facts |= {"skipped": bad.skipped, "examples_of_skipped": bad.examples}
        return stage.facts, stage.folder, stage.key

    def append(self, documents: AddedDocuments, facts: dict[str, Any], key: str) -> Manifest:
        """New documents to a segment, and the manifest that names it."""
        corpus = self.corpus
        folder = corpus.path / segment_folder(corpus.manifest.version + 1)
        folder.parent.mkdir(exist_ok=True)
        with self.work.stage(
            "segment", unit="samples", total=None, depends_on={"documents": key}
        ) as stage:
            with published(folder) as partial:
                segment, samples = write_segment(
                    corpus,
                    documents,
                    [file.name for file in self.files],
                    partial,
                    empty_documents=facts["empty"],
                    known_documents=facts["known"],
                    advance=stage.advance,
                )
            sizes = corpus.domains(k=corpus.num_leaves).sizes + samples
            manifest = appended(
                corpus.manifest, segment, empty_leaves=int(np.count_nonzero(sizes == 0))
            )
            publish_version(LocalPlace(corpus.path), manifest)
        return manifest

    def far_share(self, documents: AddedDocuments) -> float | None:
        """Share of the documents that are farther from their leaf than `FAR_SHARE` of the original ones."""
        content = next(
            (entry for entry in self.corpus.manifest.extras if entry.file == DISTANCES_FILE), None
        )
        if content is None or not len(documents):
            return None
        counts = read_array(LocalStorage(self.corpus.path), content)
        far = documents.column("distance") > distance_quantile(counts, FAR_SHARE)
        return float(np.mean(far))


def _check(corpus: Corpus) -> None:
    """Refuse what has no tree to go down, or no tokens to make."""
    manifest = corpus.manifest
    if manifest.sample is None or not manifest.tree.centroids or manifest.tokenizer is None:
        raise BuildError(
            f"{corpus.address} was imported: its domains are names that came with it, and a new document "
            "belongs to none of them by itself. Documents can be added to what `braidstream build` made."
        )


def _named_apart(inputs: list[list[InputFile]]) -> list[InputFile]:
    """The files of all inputs, one after the other; a file that is named twice counts once."""
    by_path = {file.path.resolve(): file for files in inputs for file in files}
    return list(by_path.values())
