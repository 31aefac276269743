"""What a corpus was built with, to do the same to new documents: tree, tokenizer, embedding model."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from clustering.baseline import EMBEDDER_FOLDER, STATIC_MODEL
from clustering.embedder import (
    MINILM_HUB_NAME,
    Embedder,
    EmbedderChoice,
    load_embedder,
)
from clustering.errors import ModelError
from clustering.tokenization import CorpusTokenizer
from clustering.tree import Tree
from pipeline import Corpus

_RECORDED = re.compile(r"(?P<name>.*) \((?P<dtype>float32|bfloat16), (?P<backend>\w+)\)")
_STATIC = "static from "


def corpus_tree(corpus: Corpus) -> Tree:
    """The tree that the documents of `corpus` were put into."""
    return Tree.load(corpus.path / "tree", len(corpus.levels) - 1)


def corpus_tokenizer(corpus: Corpus) -> CorpusTokenizer:
    """The tokenizer that made its samples."""
    from tokenizers import Tokenizer

    entry = corpus.manifest.tokenizer
    assert entry is not None, "only token corpora are added to"
    tokenizer = Tokenizer.from_file(str(corpus.path / entry.file))
    # Text that happens to contain a special token must not become one.
    tokenizer.encode_special_tokens = True
    return CorpusTokenizer(
        tokenizer=tokenizer,
        separator_id=entry.separator_id,
        pad_id=entry.pad_id,
        source=entry.source,
    )


def recorded_embedder(corpus: Corpus, *, model: str | None, device: str) -> Callable[[], Embedder]:
    """Loads the embedding model that the tree of `corpus` was fitted on, once, when it is first called.

    `model` says where it is, if its recorded name does not. The function that is returned raises `ModelError`
    when it is not here, or when `model` is another one.
    """
    recorded = corpus.manifest.embedder

    @cache
    def load() -> Embedder:
        found = _RECORDED.fullmatch(recorded)
        if found is None:
            raise ModelError(
                f"{corpus.address} says of its embedding model only {recorded!r}, not how it computed. Build "
                "the corpus again to be able to add to it."
            )
        name = found["name"]
        is_static = name.startswith(_STATIC)
        kept = corpus.path / EMBEDDER_FOLDER
        if is_static and not (kept / STATIC_MODEL).is_dir():
            raise ModelError(
                f"the embedding model of {corpus.address}, a static one that was distilled for it, is not in "
                f"{kept}. Copy the whole corpus again, or build it again."
            )
        choice = EmbedderChoice(
            model="static" if is_static else model or _called(name),
            dtype=found["dtype"],  # type: ignore[arg-type]  # the pattern allows no others
            backend=found["backend"],  # type: ignore[arg-type]
        )
        try:
            embedder = load_embedder(choice, device=device, cache=kept, sample=list)
        except ModelError as error:
            raise ModelError(
                f"the tree of {corpus.address} was fitted on {recorded}, which cannot be loaded: {error} If "
                "it was a folder, say where it is: --model FOLDER."
            ) from error
        if embedder.name != name:
            raise ModelError(
                f"--model is {embedder.name!r}; the tree of {corpus.address} was fitted on {name!r}. Vectors "
                "of another model say nothing about its leaves."
            )
        return embedder

    return load


def _called(name: str) -> str:
    """How the command line calls the model that is recorded as `name`."""
    return "minilm" if name == MINILM_HUB_NAME else name
