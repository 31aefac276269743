"""What `TransformerEmbedder` gives is what `SentenceTransformer.encode` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clustering.embedding.embedder import minilm_location
from clustering.embedding.transformer_embedder import TransformerEmbedder, can_drive
from tests.clustering.conftest import KINDS, documents_of

SHORT = [text for kind in KINDS for text in documents_of(kind, 6)]
TEXTS = [*SHORT, "", "x", " ".join(SHORT) * 3, "word " * 180, "\u6f22\u5b57" * 700, "a\n\n\tb  c"]


@pytest.fixture(scope="module")
def model() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(minilm_location(), device="cpu").eval()


def agreement(ours: Any, theirs: Any) -> Any:
    return (
        (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    )


def test_vectors_are_those_of_encode(model: Any) -> None:
    assert can_drive(model)
    ours = TransformerEmbedder(model).embed(TEXTS)
    assert ours.dtype == np.float32
    assert agreement(ours, model.encode(TEXTS)).min() > 0.99999


def test_prompt_limit_and_side_of_the_model_are_honored(model: Any) -> None:
    before = (model.prompts, model.default_prompt_name, model.max_seq_length)
    try:
        model.prompts, model.default_prompt_name = {"search": "search: "}, "search"
        model.max_seq_length = 24
        model.tokenizer.truncation_side = "left"
        # Characters are cut where the model's limit makes them moot; here they would not be.
        texts = [text[:150] for text in TEXTS]
        ours = TransformerEmbedder(model).embed(texts)
        assert agreement(ours, model.encode(texts)).min() > 0.99999
    finally:
        model.prompts, model.default_prompt_name, model.max_seq_length = before
        model.tokenizer.truncation_side = "right"


def test_the_same_texts_give_the_same_bits(model: Any) -> None:
    first, second = (TransformerEmbedder(model).embed(TEXTS) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("what", ["prompt left out of the mean", "slow tokenizer", "cut vectors"])
def test_models_with_steps_of_their_own_are_left_to_encode(
    model: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "prompt left out of the mean":
        monkeypatch.setattr(model[1], "include_prompt", False)
    elif what == "slow tokenizer":
        monkeypatch.setattr(type(model.tokenizer), "is_fast", False)
    else:
        monkeypatch.setattr(model, "truncate_dim", 64)
    assert not can_drive(model)


def test_static_models_are_left_to_encode() -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{minilm_location()}/tokenizer.json")
    static = StaticEmbedding(tokenizer, embedding_dim=8)
    assert not can_drive(SentenceTransformer(modules=[static], device="cpu"))
