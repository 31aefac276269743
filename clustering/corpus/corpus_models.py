"""What a corpus was built with, to do the same to new documents: tree, tokenizer, embedding model."""

from __future__ import annotations

import re
from pathlib import Path

from clustering.corpus.baseline import EMBEDDER_FOLDER, STATIC_MODEL
from clustering.embedding.embedder import MINILM_HUB_NAME, EmbedderChoice
from clustering.errors import ModelError
from clustering.shards.tokenization import CorpusTokenizer
from clustering.trees.tree import Tree
from pipeline import Corpus

_RECORDED = re.compile(
    r"(?P<name>.*) \((?P<dtype>float32|bfloat16), (?P<backend>torch|onnx|openvino)\)"
)
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


def recorded_choice(corpus: Corpus, *, model: str | None) -> EmbedderChoice:
    """The embedding model that the tree of `corpus` was fitted on, and how it computed.

    `model` says where it is, if its recorded name does not. Raises `ModelError` when that is another one, or
    when a model that came with the corpus is missing.
    """
    recorded = corpus.manifest.embedder
    found = _RECORDED.fullmatch(recorded)
    if found is None:
        raise ModelError(
            f"{corpus.address} says of its embedding model only {recorded!r}, not how it computed. Build the "
            "corpus again to be able to add to it."
        )
    name = found["name"]
    is_static = name.startswith(_STATIC)
    kept = corpus.path / EMBEDDER_FOLDER
    if is_static and not (kept / STATIC_MODEL).is_dir():
        raise ModelError(
            f"the embedding model of {corpus.address}, a static one that was distilled for it, is not in "
            f"{kept}. Copy the whole corpus again, or build it again."
        )
    if model is not None and not _is_called(model, name):
        raise ModelError(
            f"--model is {Path(model).name!r}; the tree of {corpus.address} was fitted on {name!r}. Vectors "
            "of another model say nothing about its leaves."
        )
    return EmbedderChoice(
        model="static" if is_static else model or _called(name),
        dtype=found["dtype"],  # type: ignore[arg-type]  # the pattern allows no others
        backend=found["backend"],  # type: ignore[arg-type]
    )


def _is_called(model: str, name: str) -> bool:
    """Whether `--model` means what is recorded as `name`: that, or a folder of its name."""
    path = Path(model)
    asked = EmbedderChoice(model=model, dtype="float32", backend="torch").recorded_name
    if name.startswith(_STATIC):
        return asked == name
    return name in (asked, path.name) or (path.is_dir() and path.name == Path(name).name)


def _called(name: str) -> str:
    """How the command line calls the model that is recorded as `name`."""
    return "minilm" if name == MINILM_HUB_NAME else name
