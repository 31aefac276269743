"""What the stages of a build and those of an addition stand on.

A key that a stage depends on is that of the stage whose result it reads, so a changed option repeats what it
affects and nothing else. How the work is cut (`--workers`, `--engine`) is in no key: it changes no byte.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from clustering.config import BuildConfig
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.embedding.embed_task import forget_embedder
from clustering.embedding.embedder import EmbedderChoice, choose_device, choose_dtype
from clustering.shards.shard_units import ShardOptions
from clustering.shards.shards import SHARD_FORMATS
from clustering.shards.tokenization import CorpusTokenizer
from clustering.trees.fitting import load_tree
from clustering.trees.tree import Tree
from clustering.work.stages import Stage, Workspace
from pipeline.corpus.manifest import SampleSchema


class Flow(ABC):
    """The options of one run, its stages so far, and their results as more than one stage reads them."""

    def __init__(self, config: BuildConfig, work: Workspace) -> None:
        self.config = config
        self.work = work
        self.store = work.store
        self.done: dict[str, Stage] = {}
        self._is_checked = False
        forget_embedder()
        self.place = choose_device(config.device)
        self.choice = EmbedderChoice(
            model=config.model,
            backend=config.backend,
            dtype=choose_dtype(config.dtype, config.device, config.backend),
        )

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

    @abstractmethod
    def check(self) -> None:
        """Refuse, before the first stage that is to be done, what would only show after hours of work."""

    def _check_once(self) -> None:
        if not self._is_checked:
            self.check()
            self._is_checked = True

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
