"""The benchmark of building, at a size that says nothing but that it runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.build import (
    BRANCHING,
    DIMENSIONS,
    build,
    chosen,
    documents,
    passages,
    stages_table,
    summary,
    write_vectors,
)
from clustering.embedding.foreign_embeddings import find_foreign

DOCUMENTS = 100


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 texts of 500 words each."""
    folder = tmp_path_factory.mktemp("texts")
    for name in range(2):
        lines = [
            json.dumps({"text": " ".join(f"word{name}x{text}x{word}" for word in range(500))})
            for text in range(10)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def test_passages_are_the_text_but_for_a_short_rest() -> None:
    text = " ".join(f"w{number}" for number in range(300))
    cut = list(passages(text))
    assert text.startswith(" ".join(cut))
    assert all(len(passage) >= 200 for passage in cut)
    assert len(text) - len(" ".join(cut)) <= 200
    assert list(passages("short")) == []


def test_a_choice_is_even_and_of_the_size_wanted(texts: Path) -> None:
    every = list(documents(texts, whole=False))
    places = [every.index(passage) for passage in chosen(texts, 100, False)]
    steps = np.diff(places)
    assert len(places) == 100
    assert steps.min() >= 1, "in the order of the texts, none twice"
    assert steps.max() - steps.min() <= 1, "evenly"
    with pytest.raises(SystemExit, match=r"gives 20 documents, and 21 are wanted: take fewer"):
        list(chosen(texts, 21, True))


def test_vectors_have_length_1_and_the_names_of_documents(tmp_path: Path) -> None:
    write_vectors(tmp_path / "vectors", "documents.jsonl", 70_000)
    files = find_foreign(str(tmp_path / "vectors"))
    ids = [name for file in files for names in file.ids() for name in names]
    assert ids[0] == "documents.jsonl:1"
    assert ids == [f"documents.jsonl:{row}" for row in range(1, 70_001)]
    vectors = np.concatenate([part for file in files for part in file.vectors()])
    assert vectors.shape == (70_000, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    # Two vectors of one direction are closer than chance, so that there is something to cluster.
    first = vectors[:2_000].astype(np.float32)
    nearest = np.partition(first @ first.T, -2, axis=1)[:, -2]
    assert np.median(nearest) > 3 / np.sqrt(DIMENSIONS)


def test_a_build_reports_every_stage(texts: Path, tmp_path: Path) -> None:
    report = build(tmp_path, texts, DOCUMENTS, None, False)
    counts = report["counts"]
    assert counts["documents"] + counts["heldout_documents"] == DOCUMENTS
    assert report["levels"][1] <= BRANCHING
    printed = stages_table({DOCUMENTS: report})
    for name in ("read", "embed", "fit", "tokenize", "write", "finish"):
        assert f"| {name} |" in printed
    assert all(stage["peak_memory_bytes"] > 2**26 for stage in report["stages"])
    assert summary(DOCUMENTS, report, embedded=False).startswith(f"{DOCUMENTS} documents: ")
