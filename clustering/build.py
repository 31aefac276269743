"""`braidstream build`: raw text -> embeddings -> cluster tree -> leaf order -> shards -> manifest.

Every stage reads what the stages above it left in OUT/.build and is not repeated when its inputs
and options are the same (see stages.py). Of a document, only a few numbers are held in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering import corpus_files as files
from clustering.assemble import Ingredients, TargetFiles, assemble
from clustering.baseline import STATIC_MODEL
from clustering.config import BuildConfig
from clustering.documents import DocumentStore, ingest, iterate_texts
from clustering.embedder import Embedder, EmbedderChoice, choose_dtype, load_embedder
from clustering.embeddings import EmbeddingStore, embed_documents, embed_texts, save_vectors
from clustering.errors import BuildError
from clustering.inputs import find_inputs
from clustering.keyed_hash import keyed, smallest
from clustering.packing import cut_blocks
from clustering.progress import Progress
from clustering.publish import Publication
from clustering.records import BadInput
from clustering.roles import Roles, assign_roles
from clustering.shards import SHARD_FORMATS, write_shards
from clustering.stages import Stage, StageRecord, Workspace, published
from clustering.static_model import RECIPE as STATIC_RECIPE
from clustering.targets import read_targets, target_digests, target_identity
from clustering.tokenization import (
    TRAINING_CHARACTERS,
    CorpusTokenizer,
    bring_tokenizer,
    train_tokenizer,
)
from clustering.tokens import TokenStore, tokenize_documents
from clustering.tree import Tree, fit_tree
from clustering.work_store import LocalWork
from pipeline.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Manifest,
    SampleSchema,
    file_entry,
)

WORK_FOLDER = ".build"
STATIC_SAMPLE_DOCUMENTS = 2_000
"""A static embedding model is centered on this many documents of the corpus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What a build did."""

    manifest: Manifest
    stages: tuple[StageRecord, ...]
    seconds: float
    """Of this run."""
    skipped_input: int
    """Lines and files that could not be read."""
    examples_of_skipped: tuple[str, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether an earlier run had finished every stage."""
        return all(record.reused for record in self.stages)


def build(config: BuildConfig, progress: Progress | None = None) -> BuildReport:
    """Build a corpus; continue after what an earlier run has finished.

    It is built in `config.folder`, and copied from there when `config.out` is in an object store.

    Raises:
        InputError: The input cannot be found or read.
        ModelError: The embedding model or the tokenizer is not here.
        BuildError: The folder is in use, or is no place for a corpus; or nothing is left to build from.
        StorageError: The object store refuses.
    """
    started = time.monotonic()
    progress = progress or Progress()
    folder = config.folder
    _check_folder(folder, "--out" if config.address is None else "--work")
    work = Workspace(folder / WORK_FOLDER, progress)
    with work.locked():
        publication = None
        if config.address is not None:
            publication = Publication(folder, config.address, work.folder)
            publication.check()
        manifest, bad = _Build(config, work).run()
        if publication is not None:
            publication.copy(manifest, progress)
    return BuildReport(
        manifest=manifest,
        stages=tuple(work.records),
        seconds=time.monotonic() - started,
        skipped_input=bad.skipped,
        examples_of_skipped=tuple(bad.examples),
    )


class _Build:
    """The flow of one build: each method is a stage, in the order of the file."""

    def __init__(self, config: BuildConfig, work: Workspace) -> None:
        self.config = config
        self.work = work
        self.choice = EmbedderChoice(
            model=config.model,
            backend=config.backend,
            dtype=choose_dtype(config.dtype, config.device, config.backend),
        )
        self._embedder: Embedder | None = None

    def run(self) -> tuple[Manifest, BadInput]:
        ingested = self.read()
        documents = DocumentStore(ingested.folder)
        targets = self.read_targets()
        roles = assign_roles(
            documents.digests,
            target_digests(self.config.target, targets.folder),
            heldout_share=self.config.heldout_share,
            seed=self.config.seed,
        )
        embedded = self.embed(ingested, documents)
        embedded_targets = self.embed_targets(targets, embedded, documents)
        vectors = EmbeddingStore(embedded.folder, documents.part_offsets)
        clustered = self.cluster(embedded, targets, vectors, roles)
        tree = Tree.load(clustered.folder, len(self.config.branching))
        order = _leaf_order(clustered.folder, documents, roles, self.config.seed)
        learned = self.learn_tokens(ingested, targets, documents, roles)
        tokenizer = CorpusTokenizer.load(LocalWork(self.work.folder))
        tokenized = self.tokenize(ingested, learned, documents, tokenizer)
        tokens = TokenStore(tokenized.folder, tokenizer.dtype)
        packed = self.pack(clustered, tokenized, tokens, order, tokenizer)
        manifest = self.finish(
            (ingested, targets, embedded, embedded_targets, clustered, learned, tokenized, packed),
            Ingredients(
                documents=documents,
                roles=roles,
                order=order,
                tree=tree,
                tokens=tokens,
                tokenizer=tokenizer,
                schema=self.schema(tokenizer),
                shard_format=self.config.format,
                block_bytes=self.config.block_bytes,
            ),
        )
        skipped = ingested.facts["skipped"] + targets.facts["skipped"]
        examples = [*ingested.facts["examples_of_skipped"], *targets.facts["examples_of_skipped"]]
        return manifest, BadInput(skipped=skipped, examples=examples)

    def read(self) -> Stage:
        """Files to unique documents."""
        config = self.config
        inputs = find_inputs(config.corpus)
        sample = None if config.max_documents is None else [config.max_documents, config.seed]
        depends_on = {
            "files": [file.identity for file in inputs],
            "options": [config.text_column, config.on_bad_input, config.part_documents, sample],
        }
        with self.work.stage("read", unit="documents", total=None, depends_on=depends_on) as stage:
            if stage.todo:
                counts = ingest(
                    inputs,
                    stage.folder,
                    text_column=config.text_column,
                    bad=BadInput(action=config.on_bad_input),
                    part_documents=config.part_documents,
                    max_documents=config.max_documents,
                    seed=config.seed,
                    advance=stage.advance,
                )
                if counts.documents == 0:
                    raise BuildError(
                        f"{config.corpus!r} has no document that counts: {counts.read:,} read, "
                        f"{counts.empty:,} empty, {counts.skipped:,} skipped. A corpus needs text."
                    )
                stage.facts.update(asdict(counts))
        return stage

    def read_targets(self) -> Stage:
        """Files of the target sets to unique documents."""
        config = self.config
        depends_on = {
            "files": [target_identity(target) for target in config.target],
            "options": [config.text_column, config.on_bad_input, config.part_documents],
        }
        with self.work.stage(
            "targets", unit="documents", total=None, depends_on=depends_on
        ) as stage:
            if stage.todo:
                bad = BadInput(action=config.on_bad_input)
                stage.facts["counts"] = read_targets(
                    config.target,
                    stage.folder,
                    text_column=config.text_column,
                    bad=bad,
                    part_documents=config.part_documents,
                    advance=stage.advance,
                )
                stage.facts["skipped"] = bad.skipped
                stage.facts["examples_of_skipped"] = bad.examples
        return stage

    def embed(self, ingested: Stage, documents: DocumentStore) -> Stage:
        """Documents to vectors: by far the longest stage, and so the one that continues part by part."""
        depends_on: dict[str, Any] = {"read": ingested.key, "embedder": asdict(self.choice)}
        if self.choice.is_static:
            depends_on["recipe"] = STATIC_RECIPE
        with self.work.stage(
            "embed", unit="documents", total=len(documents), depends_on=depends_on
        ) as stage:
            if stage.todo:
                embed_documents(
                    documents,
                    lambda: self.embedder(stage, documents),
                    stage.folder,
                    advance=stage.advance,
                    skip=stage.skip,
                )
                stage.facts["embedder"] = self.embedder(stage, documents).name
        return stage

    def embed_targets(self, targets: Stage, embedded: Stage, documents: DocumentStore) -> Stage:
        """Train documents of the target sets to vectors, one file per target."""
        depends_on = {"targets": targets.key, "embed": embedded.key}
        counts = targets.facts["counts"]
        total = sum(count["train"] for count in counts.values())
        with self.work.stage(
            "embed-targets", unit="documents", total=total, depends_on=depends_on
        ) as stage:
            if stage.todo:
                for name in counts:
                    store = DocumentStore(targets.folder / f"{name}.train")
                    texts = store.texts(np.arange(len(store)))
                    vectors = embed_texts(texts, self.embedder(embedded, documents), stage.advance)
                    save_vectors(stage.folder / f"{name}.npy", vectors)
        return stage

    def embedder(self, embedded: Stage, documents: DocumentStore) -> Embedder:
        """The embedding model, loaded when it is first needed; a static one belongs to the stage."""
        if self._embedder is None:
            shuffle = keyed(documents.digests[:, 0], seed=0, purpose="static model")
            self._embedder = load_embedder(
                self.choice,
                device=self.config.device,
                cache=embedded.folder,
                sample=lambda: documents.texts(smallest(shuffle, STATIC_SAMPLE_DOCUMENTS)),
            )
        return self._embedder

    def cluster(
        self, embedded: Stage, targets: Stage, vectors: EmbeddingStore, roles: Roles
    ) -> Stage:
        """Vectors to a tree, and every document to its leaf."""
        config = self.config
        depends_on = {
            "embed": embedded.key,
            "targets": targets.key,
            "options": [config.branching, config.min_split, config.heldout_share, config.seed],
        }
        total = len(roles.corpus) * len(config.branching)
        with self.work.stage(
            "cluster", unit="documents", total=total, depends_on=depends_on
        ) as stage:
            if stage.todo:
                fitted = fit_tree(
                    vectors,
                    roles.corpus,
                    branching=config.branching,
                    min_split=config.min_split,
                    seed=config.seed,
                    advance=stage.advance,
                )
                fitted.tree.save(stage.folder)
                np.save(stage.folder / "leaf.npy", fitted.leaf)
                np.save(stage.folder / "distance.npy", fitted.distance)
        return stage

    def learn_tokens(
        self, ingested: Stage, targets: Stage, documents: DocumentStore, roles: Roles
    ) -> Stage:
        """Train the tokenizer, or bring it along."""
        config = self.config
        trained = config.tokenizer == "train"
        depends_on: dict[str, Any] = {"tokenizer": config.tokenizer}
        if trained:
            options = [config.vocab_size, config.heldout_share, config.seed]
            depends_on |= {"read": ingested.key, "targets": targets.key, "options": options}
        elif Path(config.tokenizer).is_file():
            depends_on["bytes"] = file_entry(Path(), config.tokenizer).sha256
        with self.work.stage(
            "tokenizer", unit="documents", total=None, depends_on=depends_on
        ) as stage:
            if stage.todo:
                if trained:
                    texts = _training_texts(documents, roles, config.seed, stage.advance)
                    tokenizer = train_tokenizer(texts, config.vocab_size)
                else:
                    tokenizer = bring_tokenizer(config.tokenizer)
                tokenizer.save(LocalWork(self.work.folder))
        return stage

    def tokenize(
        self,
        ingested: Stage,
        learned: Stage,
        documents: DocumentStore,
        tokenizer: CorpusTokenizer,
    ) -> Stage:
        """Documents to tokens."""
        depends_on = {"read": ingested.key, "tokenizer": learned.key}
        with self.work.stage(
            "tokenize", unit="documents", total=len(documents), depends_on=depends_on
        ) as stage:
            if stage.todo:
                tokenize_documents(documents, tokenizer, stage.folder, stage.advance)
        return stage

    def pack(
        self,
        clustered: Stage,
        tokenized: Stage,
        tokens: TokenStore,
        order: files.LeafOrder,
        tokenizer: CorpusTokenizer,
    ) -> Stage:
        """Tokens in leaf order to shards."""
        schema = self.schema(tokenizer)
        depends_on = {
            "cluster": clustered.key,
            "tokenize": tokenized.key,
            "sample": asdict(schema),
            "shards": [self.config.format, self.config.block_bytes],
            "seed": self.config.seed,
        }
        total_tokens = int((tokens.lengths[order.documents] + 1).sum())
        with self.work.stage(
            "pack",
            unit="samples",
            total=-(-total_tokens // schema.tokens_per_sample),
            depends_on=depends_on,
            outputs=[self.config.folder / "shards" / SHARD_FORMATS[self.config.format].marker],
        ) as stage:
            if stage.todo:
                files.withdraw(self.config.folder)
                chunks = tokens.stream(order.documents, tokenizer.separator_id)
                blocks = cut_blocks(chunks, schema.tokens_per_sample, tokenizer.pad_id)
                with published(self.config.folder / "shards") as partial:
                    write_shards(
                        blocks,
                        partial,
                        schema,
                        shard_format=self.config.format,
                        block_bytes=self.config.block_bytes,
                        advance=stage.advance,
                    )
        return stage

    def finish(
        self,
        stages: tuple[Stage, ...],
        ingredients: Ingredients,
    ) -> Manifest:
        """Everything beside the shards; the manifest last."""
        out = self.config.folder
        ingested, targets, embedded, embedded_targets, *_ = stages
        depends_on = {stage.name: stage.key for stage in stages}
        depends_on["format_version"] = str(FORMAT_VERSION)
        with self.work.stage(
            "finish",
            unit="files",
            total=None,
            depends_on=depends_on,
            outputs=[out / MANIFEST_FILE],
        ) as stage:
            if not stage.todo:
                return Manifest.read(out)
            files.withdraw(out)
            files.clear_small_files(out)
            manifest = assemble(
                out,
                ingredients,
                targets=[
                    TargetFiles(
                        name=name,
                        train=targets.folder / f"{name}.train",
                        test=targets.folder / f"{name}.test" if counts["test"] else None,
                        train_vectors=embedded_targets.folder / f"{name}.npy",
                    )
                    for name, counts in targets.facts["counts"].items()
                ],
                scratch=stage.folder,
                embedder=f"{embedded.facts['embedder']} ({self.choice.dtype}, {self.choice.backend})",
                empty_documents=ingested.facts["empty"],
                duplicate_documents=ingested.facts["duplicates"],
                options=self.config.record(),
                static_model=embedded.folder / STATIC_MODEL if self.choice.is_static else None,
            )
            manifest.write(out)
            stage.advance(len(manifest.extras))
        return manifest

    def schema(self, tokenizer: CorpusTokenizer) -> SampleSchema:
        """What a sample is."""
        shards = SHARD_FORMATS[self.config.format]
        return shards.schema(self.config.tokens_per_sample, tokenizer.dtype)


def _check_folder(folder: Path, option: str) -> None:
    """Refuse a folder that holds something else: a build replaces `tree`, `targets` and the like in it."""
    if folder.exists() and not folder.is_dir():
        raise BuildError(
            f"{option} {str(folder)!r} is a file; it must be a folder, new or of an earlier build."
        )
    ours = (WORK_FOLDER, MANIFEST_FILE)
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not any((folder / name).exists() for name in ours)
    ):
        raise BuildError(
            f"{option} {str(folder)!r} holds files, but no corpus and no unfinished build; a build would "
            "replace what is in the way. Give a new or empty folder."
        )


def _leaf_order(
    clustered: Path, documents: DocumentStore, roles: Roles, seed: int
) -> files.LeafOrder:
    """Documents by leaf; inside a leaf by keyed hash, so that files and topics do not come in runs."""
    leaf: NDArray[np.int64] = np.load(clustered / "leaf.npy")
    distance: NDArray[np.float32] = np.load(clustered / "distance.npy")
    shuffle = keyed(documents.digests[roles.corpus, 0], seed=seed, purpose="leaf order")
    order = np.lexsort((shuffle, leaf))
    return files.LeafOrder(
        documents=roles.corpus[order], leaf=leaf[order], distance=distance[order]
    )


def _training_texts(
    documents: DocumentStore, roles: Roles, seed: int, advance: Callable[[int], None]
) -> Any:
    """Texts of a keyed-hash sample of the corpus, up to `TRAINING_CHARACTERS`."""
    shuffle = keyed(documents.digests[roles.corpus, 0], seed=seed, purpose="tokenizer")
    characters = 0
    for texts in iterate_texts(documents, roles.corpus[np.argsort(shuffle, kind="stable")], 256):
        for text in texts:
            yield text[: TRAINING_CHARACTERS - characters]
            characters += len(text)
            if characters >= TRAINING_CHARACTERS:
                return
        advance(len(texts))
