"""The stages of a build: what each depends on, and who does its work.

A key that a stage depends on is that of the stage whose result it reads, so a changed option repeats what it
affects and nothing else. How the work is cut (`--workers`, `--engine`) is in no key: it changes no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.cards.describe_task import DescribeTask, described_name
from clustering.config import BuildConfig
from clustering.corpus import corpus_files as files
from clustering.corpus.assemble import Ingredients, Provenance, TargetFiles, assemble
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles, assign_roles
from clustering.documents.duplicates import find_duplicates
from clustering.documents.input_files import InputFile, LocalFile
from clustering.documents.inputs import files_below, find_inputs
from clustering.documents.reading import (
    ReadCounts,
    ReadOptions,
    ReadTask,
    finish_reading,
    publish_files,
    unit_name,
)
from clustering.documents.records import BadInput
from clustering.documents.targets import (
    TargetDocuments,
    read_targets,
    target_digests,
    target_identity,
)
from clustering.embedding.adopted_embeddings import CorpusDocuments, adopt_embeddings
from clustering.embedding.embed_task import (
    PIECE_DOCUMENTS,
    STATIC_MARKER,
    DistillTask,
    EmbedTargetsTask,
    EmbedTask,
    forget_embedder,
    piece_name,
    target_pieces,
)
from clustering.embedding.embedder import EmbedderChoice, choose_device, choose_dtype
from clustering.embedding.embedding_parts import EmbeddingParts, part_name
from clustering.embedding.foreign_embeddings import ForeignFile, find_foreign
from clustering.embedding.model_check import check_device, check_model
from clustering.embedding.static_model import RECIPE as STATIC_RECIPE
from clustering.errors import BuildError, InputError, ModelError
from clustering.shards.leaf_order import OrderTask, parts_per_run, run_name
from clustering.shards.shard_plan import UNITS, plan_shards
from clustering.shards.shard_units import ShardOptions, WriteTask
from clustering.shards.shard_units import unit_name as shard_unit_name
from clustering.shards.shards import SHARD_FORMATS
from clustering.shards.token_parts import TokenizeTask, tokens_name
from clustering.shards.tokenization import (
    CorpusTokenizer,
    bring_tokenizer,
    check_tokenizer,
    train_tokenizer,
)
from clustering.shards.tokenizer_sample import training_texts
from clustering.trees.assignment import AssignTask, assigned_name
from clustering.trees.fitting import FitOptions, fit_corpus, load_tree
from clustering.trees.tree import Tree
from clustering.work.stages import Stage, Workspace
from pipeline.corpus.manifest import (
    FORMAT_VERSION,
    Manifest,
    SampleSchema,
    file_entry,
)
from pipeline.errors import CorpusError
from pipeline.stores.address import is_address
from pipeline.stores.object_store import ObjectStore


def foreign_identities(files: Sequence[ForeignFile]) -> list[Sequence[Any]]:
    """What changes when one of the files of vectors does, which lie in one place."""
    address = files[0].store.address
    if is_address(address):
        marks = ObjectStore(address).marks()
        return [[file.name, marks.get(file.name, "")] for file in files]
    return [LocalFile(path=Path(address) / file.name, name=file.name).identity for file in files]


def folder_identity(folder: Path) -> list[Sequence[Any]]:
    """What changes when a file of a model does, hidden ones left out."""
    files = sorted(files_below(folder, BadInput()), key=lambda file: file.name)
    return [file.identity for file in files]


class BuildStages:
    """One build: call the stages in the order of the file."""

    def __init__(self, config: BuildConfig, work: Workspace) -> None:
        self.config = config
        self.work = work
        self.store = work.store
        self.done: dict[str, Stage] = {}
        self._is_checked = False
        self._unlisted = BadInput(action=config.on_bad_input)
        """Folders among the texts that cannot be listed."""
        forget_embedder()
        self.place = choose_device(config.device)
        self.choice = EmbedderChoice(
            model=config.model,
            backend=config.backend,
            dtype=choose_dtype(config.dtype, config.device, config.backend),
        )

    @cached_property
    def inputs(self) -> list[InputFile]:
        """The files to read."""
        return self.found(self.config.corpus)

    def found(self, texts: str) -> list[InputFile]:
        """The files that `texts` means, without those that builds and additions write.

        Raises:
            InputError: No others are there.
        """
        places = (self.config.folder, self.config.work_place, self.config.address)
        folders = [place.resolve() for place in places if isinstance(place, Path)]
        prefixes = tuple(f"{place}/" for place in places if isinstance(place, str))

        def is_ours(place: str) -> bool:
            if is_address(place):
                return place.startswith(prefixes)
            return any(map(Path(place).is_relative_to, folders))

        files = find_inputs(texts, self._unlisted)
        others = [file for file in files if not is_ours(file.place)]
        if not others:
            raise InputError(
                f"{texts!r}: {files[0].place!r} and whatever else is there lies in the corpus folder or its "
                "work, which is not read as text. Move the texts out of it."
            )
        return others

    @cached_property
    def documents(self) -> DocumentParts:
        """What was read."""
        return DocumentParts(self.store)

    @cached_property
    def document_roles(self) -> DocumentRoles:
        """What each of them is for."""
        return DocumentRoles(self.store, self.documents.part_offsets)

    @cached_property
    def tree(self) -> Tree:
        """The fitted tree."""
        return load_tree(self.store)

    @cached_property
    def corpus_tokenizer(self) -> CorpusTokenizer:
        """The tokenizer that was trained or brought along."""
        return CorpusTokenizer.load(self.store)

    @cached_property
    def shards(self) -> ShardOptions:
        """What shards are like."""
        config, tokenizer = self.config, self.corpus_tokenizer
        schema: SampleSchema = SHARD_FORMATS[config.format].schema(
            config.tokens_per_sample, tokenizer.dtype
        )
        return ShardOptions(
            schema=schema,
            shard_format=config.format,
            block_bytes=config.block_bytes,
            shard_bytes=config.shard_bytes,
            separator_id=tokenizer.separator_id,
            pad_id=tokenizer.pad_id,
        )

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

    def _check_once(self) -> None:
        if not self._is_checked:
            self.check()
            self._is_checked = True

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

    def read(self) -> None:
        """Files to parts of documents."""
        config = self.config
        inputs = self.inputs
        options = ReadOptions(
            text_column=config.text_column,
            id_column=config.id_column,
            on_bad_input=config.on_bad_input,
            part_documents=config.part_documents,
        )
        depends_on = {"files": [file.identity for file in inputs], "options": asdict(options)}
        with self._stage("read", depends_on) as stage:
            if stage.todo:
                num_units = publish_files(self.store, "read", inputs)
                outputs = [unit_name("read", unit) for unit in range(num_units)]
                stage.run(ReadTask(store=self.store, prefix="read", options=options), outputs)
                counts = finish_reading(self.store, "read", num_units)
                counts.add(
                    ReadCounts(
                        skipped=self._unlisted.skipped, examples_of_skipped=self._unlisted.examples
                    )
                )
                stage.facts.update(asdict(counts))

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

    def embed(self) -> None:
        """Documents to vectors: by far the longest stage."""
        depends_on = {**self._keys("dedupe", "static-model"), "embedder": asdict(self.choice)}
        if self.choice.is_folder:
            depends_on["model_files"] = folder_identity(Path(self.choice.model))
        if self.config.embeddings is not None:
            foreign = find_foreign(self.config.embeddings)
            depends_on["embeddings"] = foreign_identities(foreign)
        total = self._fact("dedupe", "remain")
        with self._stage("embed", depends_on, total=total) as stage:
            if stage.todo and self.config.embeddings is not None:
                adopt_embeddings(
                    foreign,
                    CorpusDocuments(self.store),
                    self.store,
                    remedy="Add what is missing, or leave the option out to embed all documents here.",
                    advance=stage.advance,
                )
            elif stage.todo:
                self._say_where_it_embeds()
                task = EmbedTask(store=self.store, choice=self.choice, place=self.place)
                stage.run(task, self._per_part(part_name), self._kept)
            if stage.todo:
                stage.facts["embedder"] = self.choice.recorded_name

    def _say_where_it_embeds(self) -> None:
        config = self.config
        chose = config.device == "auto" and not self.choice.is_static
        if config.engine == "ray" and chose and self.place == "cpu":
            self.work.progress.note(
                "this machine has no GPU, so the nodes embed on their cores; where they have GPUs, "
                "give --device cuda --dtype bfloat16"
            )

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

    def assign(self) -> None:
        """Vectors to leaves."""
        total = self._fact("roles", "corpus")
        with self._stage("assign", self._keys("fit"), total=total) as stage:
            if stage.todo:
                task = AssignTask(store=self.store)
                stage.run(task, self._per_part(assigned_name), self._in_corpus)

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

    def tokenize(self) -> None:
        """Documents to tokens."""
        depends_on = self._keys("dedupe", "tokenizer")
        total = self._fact("dedupe", "remain")
        with self._stage("tokenize", depends_on, total=total) as stage:
            if stage.todo:
                stage.run(TokenizeTask(store=self.store), self._per_part(tokens_name), self._kept)

    def order(self) -> None:
        """Documents to runs in leaf order."""
        config = self.config
        per_run = parts_per_run(config.sort_memory)
        depends_on = {**self._keys("assign", "tokenize"), "options": [config.seed, per_run]}
        total = self._fact("roles", "corpus")
        with self._stage("order", depends_on, total=total) as stage:
            stage.facts["runs"] = runs = -(-self.documents.num_parts // per_run)
            if stage.todo:
                task = OrderTask(store=self.store, seed=config.seed, parts_per_run=per_run)
                stage.run(task, [run_name(run) for run in range(runs)])

    def plan(self) -> None:
        """Which documents go into which shards."""
        shards, sort_bytes = self.shards, self.config.sort_memory
        per_unit = shards.shards_per_unit(sort_bytes)
        depends_on = {**self._keys("order"), "shards": asdict(shards), "per_unit": per_unit}
        with self._stage("plan", depends_on, total=self._fact("roles", "corpus")) as stage:
            if stage.todo:
                unit_samples = per_unit * shards.samples_per_shard
                plan_shards(
                    self.store,
                    num_runs=self._fact("order", "runs"),
                    num_leaves=self.tree.num_leaves,
                    unit_tokens=unit_samples * shards.schema.tokens_per_sample,
                    sort_bytes=sort_bytes,
                )
                stage.advance(self._fact("roles", "corpus"))

    def write(self) -> None:
        """Tokens to shards."""
        shards = self.shards
        per_unit = shards.shards_per_unit(self.config.sort_memory)
        with self._stage("write", self._keys("plan"), unit="samples") as stage:
            if stage.todo:
                task = WriteTask(
                    store=self.store,
                    options=shards,
                    num_runs=self._fact("order", "runs"),
                    shards_per_unit=per_unit,
                )
                num_units = len(self.store.array(UNITS))
                stage.run(task, [shard_unit_name(unit) for unit in range(num_units)])

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

    @contextmanager
    def _stage(
        self,
        name: str,
        depends_on: dict[str, Any],
        *,
        unit: str = "documents",
        total: int | None = None,
        is_there: Callable[[dict[str, Any]], bool] = lambda facts: True,
    ) -> Iterator[Stage]:
        with self.work.stage(
            name,
            unit=unit,
            total=total,
            depends_on=depends_on,
            is_there=is_there,
            before=self._check_once,
        ) as stage:
            self.done[name] = stage
            yield stage

    def _keys(self, *names: str) -> dict[str, Any]:
        return {name: self.done[name].key for name in names}

    def _fact(self, name: str, fact: str) -> Any:
        return self.done[name].facts[fact]

    def _per_part(self, name: Callable[[int], str]) -> list[str]:
        return [name(part) for part in range(self.documents.num_parts)]

    @cached_property
    def _kept(self) -> list[int]:
        """Documents of each part that are embedded and tokenised."""
        return [len(self.document_roles.kept(part)) for part in range(self.documents.num_parts)]

    @cached_property
    def _in_corpus(self) -> list[int]:
        """Documents of each part that the corpus is made of."""
        return [len(self.document_roles.corpus(part)) for part in range(self.documents.num_parts)]
