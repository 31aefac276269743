"""The stages that only a build has: targets, duplicates, roles, the models, the tree, the corpus folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards.describe_task import DescribeTask, described_name
from clustering.corpus import corpus_files as files
from clustering.corpus.assemble import Ingredients, Provenance, TargetFiles, assemble
from clustering.documents.document_roles import assign_roles
from clustering.documents.duplicates import find_duplicates
from clustering.documents.records import BadInput
from clustering.documents.targets import (
    TargetDocuments,
    read_targets,
    target_digests,
    target_identity,
)
from clustering.embedding.embed_task import (
    PIECE_DOCUMENTS,
    STATIC_MARKER,
    DistillTask,
    EmbedTargetsTask,
    piece_name,
    target_pieces,
)
from clustering.embedding.embedding_parts import EmbeddingParts
from clustering.embedding.foreign_embeddings import find_foreign
from clustering.embedding.model_check import check_device, check_model
from clustering.embedding.static_model import RECIPE as STATIC_RECIPE
from clustering.errors import BuildError, ModelError
from clustering.shards.shards import SHARD_FORMATS
from clustering.shards.tokenization import bring_tokenizer, check_tokenizer, train_tokenizer
from clustering.shards.tokenizer_sample import training_texts
from clustering.shared_stages import SharedStages, folder_identity
from clustering.trees.fitting import FitOptions, fit_corpus
from pipeline.corpus.manifest import FORMAT_VERSION, Manifest, file_entry
from pipeline.errors import CorpusError


class BuildStages(SharedStages):
    """One build; `build.py` has the order of its stages."""

    @property
    def skipped_input(self) -> int:
        """Lines and files that could not be read."""
        return int(self._fact("read", "skipped")) + int(self._fact("targets", "skipped"))

    @property
    def examples_of_skipped(self) -> list[str]:
        """The first few of them."""
        return [
            *self._fact("read", "examples_of_skipped"),
            *self._fact("targets", "examples_of_skipped"),
        ]

    def check(self) -> None:
        """Refuse, before the first stage that is to be done, what would only show after hours of work.

        What only stages that are done already need is not asked for.
        """
        config = self.config
        self._check_nothing_was_added()
        if "embed-targets" not in self.done:
            if config.embeddings is not None:
                find_foreign(config.embeddings)
            if config.engine == "local":
                check_device(self.place)
            check_model(self.choice)
        if "tokenizer" not in self.done:
            check_tokenizer(config.tokenizer)

    def _check_nothing_was_added(self) -> None:
        """Refuse to replace a corpus that has grown: what was added is in none of the stages."""
        folder = self.config.folder
        try:
            manifest = Manifest.read(folder)
        except CorpusError:  # none, or one that is damaged
            return
        if manifest.added:
            option = "--out" if self.config.address is None else "--work"
            documents = sum(entry.counts.documents for entry in manifest.added)
            raise BuildError(
                f"{option} {str(folder)!r} holds version {manifest.version} of a corpus, with {documents:,} "
                "documents that were added after it was built; this build would replace it by one without "
                f"them. Give another {option}, or remove the folder first."
            )

    def read_targets(self) -> None:
        """Files of the target sets to unique documents: first, since they are few and may be wrong."""
        config = self.config
        listing = BadInput(action=config.on_bad_input)
        depends_on = {
            "files": [target_identity(target, listing) for target in config.target],
            "options": [config.text_column, config.on_bad_input],
        }
        with self._stage("targets", depends_on) as stage:
            if stage.todo:
                bad = BadInput(action=config.on_bad_input)
                stage.facts["counts"] = read_targets(
                    config.target,
                    self.store,
                    text_column=config.text_column,
                    bad=bad,
                    advance=stage.advance,
                )
                stage.facts["skipped"] = bad.skipped
                stage.facts["examples_of_skipped"] = bad.examples

    def dedupe(self) -> None:
        """Which documents are kept: one of equal ones, and of those a sample if one is wanted."""
        config = self.config
        sample = None if config.max_documents is None else [config.max_documents, config.seed]
        depends_on = {**self._keys("read"), "sample": sample}
        with self._stage("dedupe", depends_on, total=len(self.documents)) as stage:
            if stage.todo:
                stage.facts |= find_duplicates(
                    self.store, self.documents, max_documents=config.max_documents, seed=config.seed
                )
                stage.advance(len(self.documents))
        if not self._fact("dedupe", "remain"):
            read = self.done["read"].facts
            raise BuildError(
                f"{config.corpus!r} has no document that counts: {read['read']:,} read, {read['empty']:,} "
                f"empty, {read['skipped']:,} skipped. A corpus needs text."
            )

    def roles(self) -> None:
        """What each document is for."""
        config = self.config
        depends_on = {
            **self._keys("dedupe", "targets"),
            "options": [config.heldout_share, config.seed],
        }
        with self._stage("roles", depends_on, total=len(self.documents)) as stage:
            if stage.todo:
                stage.facts |= assign_roles(
                    self.store,
                    self.documents,
                    target_digests(config.target, self.store),
                    heldout_share=config.heldout_share,
                    seed=config.seed,
                )
                stage.advance(len(self.documents))

    def distill(self) -> None:
        """The static embedding model of this corpus, when it is the chosen one."""
        depends_on: dict[str, Any] = {"static": self.choice.is_static}
        if self.choice.is_static:
            depends_on |= {**self._keys("dedupe"), "recipe": STATIC_RECIPE}
        total = 1 if self.choice.is_static else None
        with self._stage("static-model", depends_on, unit="model", total=total) as stage:
            if stage.todo and self.choice.is_static:
                self.work.progress.note(
                    "static-model: is distilled, once for this machine, and centered on this corpus"
                )
                task = DistillTask(store=self.store, choice=self.choice, place=self.place)
                stage.run(task, [STATIC_MARKER])

    def embed_targets(self) -> None:
        """Train documents of the target sets to vectors."""
        counts = {name: count["train"] for name, count in self._target_counts().items()}
        depends_on = {**self._keys("targets", "embed"), "piece": PIECE_DOCUMENTS}
        with self._stage("embed-targets", depends_on, total=sum(counts.values())) as stage:
            if stage.todo:
                task = EmbedTargetsTask(
                    store=self.store,
                    choice=self.choice,
                    place=self.place,
                    pieces=target_pieces(counts),
                )
                stage.run(task, [piece_name(*piece) for piece in task.pieces])
                for name in counts:
                    self._check_dimensions(self._target_vectors(name).shape[1])

    def _target_vectors(self, name: str) -> NDArray[np.float16]:
        count = self._target_counts()[name]["train"]
        pieces = target_pieces({name: count})
        return np.concatenate([self.store.array(piece_name(*piece)) for piece in pieces])

    def fit(self) -> None:
        """A sample of the vectors to a tree."""
        config = self.config
        options = FitOptions(
            branching=config.branching,
            min_split=config.min_split,
            max_share=config.max_share,
            fit_documents=config.fit_documents,
            seed=config.seed,
        )
        depends_on = {**self._keys("embed", "roles"), "options": asdict(options)}
        with self._stage("fit", depends_on) as stage:
            if stage.todo:
                for note in fit_corpus(self.store, options, advance=stage.advance):
                    self.work.progress.note(note)

    def tokenizer(self) -> None:
        """Train the tokenizer, or bring it along."""
        config = self.config
        path = Path(config.tokenizer).expanduser()
        depends_on: dict[str, Any] = {"tokenizer": config.tokenizer}
        if config.tokenizer == "train":
            depends_on |= {**self._keys("roles"), "options": [config.vocab_size, config.seed]}
        elif path.is_file():
            depends_on["bytes"] = file_entry(path.parent, path.name).sha256
        elif path.is_dir():
            depends_on["files"] = folder_identity(path)
        with self._stage("tokenizer", depends_on) as stage:
            if stage.todo:
                if config.tokenizer == "train":
                    texts = training_texts(
                        self.documents, self.document_roles, config.seed, stage.advance
                    )
                    tokenizer = train_tokenizer(texts, config.vocab_size)
                else:
                    tokenizer = bring_tokenizer(config.tokenizer)
                tokenizer.save(self.store)

    def describe(self) -> None:
        """What every part knows about every leaf, for the cards."""
        depends_on = {**self._keys("assign", "tokenize"), "options": [self.config.seed]}
        total = self._fact("roles", "corpus")
        with self._stage("describe", depends_on, total=total) as stage:
            if stage.todo:
                task = DescribeTask(
                    store=self.store, num_leaves=self.tree.num_leaves, seed=self.config.seed
                )
                stage.run(task, self._per_part(described_name), self._in_corpus)

    def finish(self) -> Manifest:
        """Everything into the corpus folder; the manifest last."""
        out = self.config.folder
        depends_on = {
            name: stage.key for name, stage in self.done.items() if name not in ("order", "plan")
        }
        depends_on["format_version"] = str(FORMAT_VERSION)
        with self._stage("finish", depends_on, unit="texts", is_there=self._is_in_folder) as stage:
            if not stage.todo:
                return Manifest.read(out)
            files.withdraw(out)
            files.clear_small_files(out)
            manifest = assemble(
                out,
                Ingredients(
                    store=self.store,
                    documents=self.documents,
                    roles=self.document_roles,
                    tree=self.tree,
                    tokenizer=self.corpus_tokenizer,
                    shards=self.shards,
                ),
                targets=[self._target(name) for name in self._target_counts()],
                provenance=Provenance(
                    embedder=f"{self._fact('embed', 'embedder')} "
                    f"({self.choice.dtype}, {self.choice.backend})",
                    empty_documents=self._fact("read", "empty"),
                    duplicate_documents=self._fact("dedupe", "duplicates"),
                    documents_in_targets=self._fact("roles", "in_targets"),
                    options=self.config.record(),
                    has_static_model=self.choice.is_static,
                ),
                advance=stage.advance,
            )
            manifest.write(out)
            stage.facts["fingerprint"] = manifest.fingerprint
        return manifest

    def _is_in_folder(self, facts: dict[str, Any]) -> bool:
        """Whether the folder has the corpus: builds of others may share the work store. It may have grown."""
        out = self.config.folder
        if not (out / "shards" / SHARD_FORMATS[self.config.format].marker).is_file():
            return False
        try:
            manifest = Manifest.read(out)
        except CorpusError:
            return False
        built = facts.get("fingerprint")  # None in the work of earlier versions
        return built in (None, manifest.fingerprint, *manifest.earlier)

    def _target_counts(self) -> dict[str, dict[str, int]]:
        """Documents of each target set, in the order of the command: facts of an earlier run have another."""
        counts = self._fact("targets", "counts")
        return {target.name: counts[target.name] for target in self.config.target}

    def _target(self, name: str) -> TargetFiles:
        has_test = self._target_counts()[name]["test"] > 0
        return TargetFiles(
            name=name,
            train=TargetDocuments(self.store, name, "train"),
            test=TargetDocuments(self.store, name, "test") if has_test else None,
            train_vectors=self._target_vectors(name),
        )

    def _check_dimensions(self, found: int) -> None:
        """Vectors of the corpus that came from elsewhere may be another model's."""
        expected = EmbeddingParts(self.store).dimensions
        if found != expected:
            raise ModelError(
                f"--embeddings has vectors of {expected} numbers, but --model {self.choice.model} makes "
                f"some of {found}: target sets cannot be compared with the corpus. Name the model that made "
                "the embeddings."
            )
