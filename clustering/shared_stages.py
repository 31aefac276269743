"""The stages that builds and additions share: from files to parts of documents, from those to shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from clustering.documents.input_files import InputFile
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
from clustering.embedding.adopted_embeddings import CorpusDocuments, adopt_embeddings
from clustering.embedding.embed_task import EmbedTask
from clustering.embedding.embedding_parts import part_name
from clustering.embedding.foreign_embeddings import find_foreign, foreign_identities
from clustering.errors import InputError
from clustering.flow import Flow
from clustering.shards.leaf_order import OrderTask, parts_per_run, run_name
from clustering.shards.shard_plan import UNITS, plan_shards
from clustering.shards.shard_units import WriteTask
from clustering.shards.shard_units import unit_name as shard_unit_name
from clustering.shards.token_parts import TokenizeTask, tokens_name
from clustering.trees.assignment import AssignTask, assigned_name
from pipeline.stores.address import is_address


def folder_identity(folder: Path) -> list[Sequence[Any]]:
    """What changes when a file of a model does, hidden ones left out."""
    files = sorted(files_below(folder, BadInput()), key=lambda file: file.name)
    return [file.identity for file in files]


class SharedStages(Flow):
    """Each leaves its result in the work store; what they need to know from others is in `Flow`."""

    @cached_property
    def inputs(self) -> list[InputFile]:
        """The files to read."""
        return self.found(self.config.corpus)

    @cached_property
    def _unlisted(self) -> BadInput:
        """Folders among the texts that cannot be listed."""
        return BadInput(action=self.config.on_bad_input)

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

    def assign(self) -> None:
        """Vectors to leaves."""
        total = self._fact("roles", "corpus")
        with self._stage("assign", self._keys("fit"), total=total) as stage:
            if stage.todo:
                task = AssignTask(store=self.store)
                stage.run(task, self._per_part(assigned_name), self._in_corpus)

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
