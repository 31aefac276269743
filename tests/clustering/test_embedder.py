from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clustering.embedding import embedder as module
from clustering.embedding.embedder import (
    Embedder,
    EmbedderChoice,
    choose_dtype,
    distill_static,
    minilm_location,
    open_embedder,
)
from clustering.errors import ModelError
from tests.clustering.conftest import KINDS, documents_of

LABELS = np.repeat(np.arange(len(KINDS)), 25)
TEXTS = [text for kind in KINDS for text in documents_of(kind, 25)]


MINILM = EmbedderChoice(model="minilm", dtype="float32", backend="torch")


@pytest.fixture(scope="session")
def minilm() -> Embedder:
    return open_embedder(MINILM, device="cpu")


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    choice = EmbedderChoice(
        model="static", dtype=choose_dtype("auto", "cpu", "torch"), backend="torch"
    )
    folder = tmp_path_factory.mktemp("static") / "model"
    distill_static(choice, device="cpu", texts=TEXTS, folder=folder)
    return open_embedder(choice, device="cpu", static_folder=folder)


@pytest.mark.parametrize("name", ["minilm", "static"])
def test_kinds_of_text_are_told_apart(name: str, request: pytest.FixtureRequest) -> None:
    embedder: Embedder = request.getfixturevalue(name)
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (LABELS[similarity.argmax(axis=1)] == LABELS).all(), "nearest neighbor is of its kind"


@pytest.mark.parametrize("name", ["minilm", "static"])
def test_the_order_of_texts_is_kept(name: str, request: pytest.FixtureRequest) -> None:
    embedder: Embedder = request.getfixturevalue(name)
    texts = [TEXTS[0], TEXTS[30] * 20, "x", TEXTS[60]]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_a_text_without_known_tokens_gets_a_direction(static: Embedder) -> None:
    np.testing.assert_allclose(np.linalg.norm(static.embed(["", "\U0001f9ff"]), axis=1), 1)


def test_bfloat16_points_the_same_way(minilm: Embedder) -> None:
    choice = EmbedderChoice(model="minilm", dtype="bfloat16", backend="torch")
    half = open_embedder(choice, device="cpu").embed(TEXTS[::10])
    assert (half * minilm.embed(TEXTS[::10])).sum(axis=1).min() > 0.999


def test_recorded_names_are_free_of_paths(tmp_path: Path) -> None:
    def recorded(model: str) -> str:
        return EmbedderChoice(model=model, dtype="float32", backend="torch").recorded_name

    assert recorded("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert recorded("static") == "static from sentence-transformers/all-MiniLM-L6-v2"
    assert recorded(str(tmp_path)) == tmp_path.name
    assert recorded("maker/model") == "maker/model"


def test_a_static_model_is_centered_on_its_corpus(static: Embedder) -> None:
    assert np.linalg.norm(static.embed(TEXTS).mean(axis=0)) < 0.1


def test_without_package_and_hub_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "MINILM_PACKAGE", "a_package_that_is_not_there")
    monkeypatch.setattr(module, "MINILM_HUB_NAME", str(tmp_path / "no-hub"))
    with pytest.raises(ModelError, match=r"braidstream\[minilm\].*--model FOLDER"):
        open_embedder(MINILM, device="cpu")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    missing = EmbedderChoice(model=str(tmp_path / "none"), dtype="float32", backend="torch")
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_embedder(missing, device="cpu")


def test_bfloat16_is_torch_only() -> None:
    assert choose_dtype("auto", "cpu", "onnx") == "float32"
    assert choose_dtype("float32", "cpu", "torch") == "float32"
    with pytest.raises(ModelError, match="--backend torch"):
        choose_dtype("bfloat16", "cpu", "onnx")


@pytest.mark.parametrize("name", ["minilm", "static"])
def test_no_text_gives_no_vector(name: str, request: pytest.FixtureRequest) -> None:
    embedder: Embedder = request.getfixturevalue(name)
    assert embedder.embed([]).shape == (0, embedder.embed(["x"]).shape[1])


def test_a_folder_of_model2vec_is_a_static_model(tmp_path: Path) -> None:
    """The files that model2vec 0.10 saves, with a table of our own."""
    from safetensors.numpy import save_file

    kinds = (
        "sentence_transformers.models.StaticEmbedding",
        "sentence_transformers.models.Normalize",
    )
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(zip((".", "1_Normalize"), kinds, strict=True))
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules), "utf-8")
    tokenizer = Path(minilm_location()) / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    table = np.random.default_rng(0).standard_normal((30_522, 8)).astype(np.float32)
    save_file({"embeddings": table}, tmp_path / "model.safetensors")
    choice = EmbedderChoice(model=str(tmp_path), dtype="float32", backend="torch")
    found = open_embedder(choice, device="cpu").embed(["a a b"])[0]
    ids = [1037, 1037, 1038]  # "a" and "b" in the vocabulary of BERT
    expected = table[ids].mean(axis=0)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)
