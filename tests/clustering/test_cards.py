"""Cards: what they count must add up at every level, and the files must not depend on the clock."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.cards import (
    SOURCE_COUNTS_FILE,
    TERM_COUNTS_FILE,
    TERMS_FILE,
    card_file,
    excerpt,
    write_cards,
)
from clustering.cards.keywords import class_keywords, count_terms, sum_leaves

SUBJECTS = (
    "genome sequence variant",
    "satellite antenna orbit",
    "invoice payment tax",
    "oven flour butter",
)
LEVELS = (1, 2, 4)
BOUNDS = [np.array(b, dtype=np.int64) for b in ([0, 4], [0, 2, 4], [0, 1, 2, 3, 4])]


def small_corpus(per_leaf: int = 12, seed: int = 0) -> dict[str, Any]:
    """Four leaves about four subjects, from two source files, in leaf order."""
    rng = np.random.default_rng(seed)
    leaf = np.repeat(np.arange(4), per_leaf).astype(np.int64)
    texts = [
        " ".join(rng.permutation(SUBJECTS[i].split() * 3 + ["common", "words"]).tolist())
        for i in leaf
    ]

    def read(indices: NDArray[np.int64]) -> list[str]:
        assert np.all(np.diff(indices) > 0)
        return [texts[i] for i in indices]

    return {
        "levels": LEVELS,
        "leaf_bounds_per_level": BOUNDS,
        "document_leaf": leaf,
        "document_tokens": rng.integers(5, 50, len(leaf)).astype(np.int64),
        "document_distance": rng.random(len(leaf)).astype(np.float32),
        "texts": read,
        "document_source": (leaf // 2).astype(np.int32),
        "source_names": ["science.jsonl", "home.jsonl"],
        "leaf_offsets": np.array([0, 5, 9, 9, 20], dtype=np.int64),
    }


def cards(folder: Path, level: int) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (folder / card_file(level)).read_text("utf-8").splitlines()
    ]


def test_cards_describe_each_domain(tmp_path: Path) -> None:
    corpus = small_corpus()
    written = write_cards(tmp_path, **corpus)
    assert written == sorted(
        str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()
    )
    for level, k in enumerate(LEVELS):
        rows = cards(tmp_path, level)
        assert [row["domain"] for row in rows] == list(range(k))
        assert sum(row["documents"] for row in rows) == len(corpus["document_leaf"])
        assert sum(row["tokens"] for row in rows) == corpus["document_tokens"].sum()
        assert sum(row["samples"] for row in rows) == 20
    leaves = cards(tmp_path, 2)
    for row, subject in zip(leaves, SUBJECTS, strict=True):
        assert set(row["keywords"][:3]) == set(subject.split())
    assert [row["parent"] for row in leaves] == [0, 0, 1, 1]
    assert leaves[0]["sources"] == [{"source": "science.jsonl", "documents": 12, "share": 1.0}]
    assert [len(row["sources"]) for row in cards(tmp_path, 0)] == [2]


def test_examples_are_the_nearest_and_the_farthest(tmp_path: Path) -> None:
    corpus = small_corpus()
    write_cards(tmp_path, **corpus)
    distance = corpus["document_distance"]
    first = cards(tmp_path, 2)[0]
    order = np.argsort(distance[:12])
    assert [example["document"] for example in first["examples"]] == order[:3].tolist()
    assert first["farthest"]["document"] == order[-1]
    assert first["examples"][0]["text"] == excerpt(corpus["texts"](order[:1])[0])
    half = cards(tmp_path, 1)[0]
    leaves_shown = {
        int(corpus["document_leaf"][example["document"]]) for example in half["examples"]
    }
    assert leaves_shown == {0, 1}, "a coarse domain shows more than one of its leaves"


def test_a_domain_of_one_document_shows_it_once(tmp_path: Path) -> None:
    corpus = small_corpus(per_leaf=1)
    write_cards(tmp_path, **corpus)
    for row in cards(tmp_path, 2):
        assert len(row["examples"]) == 1
        assert row["farthest"] is None


def test_an_empty_leaf_has_an_empty_card(tmp_path: Path) -> None:
    corpus = small_corpus()
    corpus["document_leaf"] = np.where(corpus["document_leaf"] == 2, 1, corpus["document_leaf"])
    write_cards(tmp_path, **corpus)
    empty = cards(tmp_path, 2)[2]
    assert (empty["documents"], empty["tokens"], empty["examples"]) == (0, 0, [])
    assert (empty["keywords"], empty["sources"], empty["farthest"]) == ([], [], None)


def test_files_are_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    written = write_cards(tmp_path / "first", **small_corpus())
    write_cards(tmp_path / "second", **small_corpus())
    for file in written:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
        if file.endswith(".npz"):
            with zipfile.ZipFile(tmp_path / "first" / file) as archive:
                assert {member.date_time[0] for member in archive.infolist()} == {1980}, "no clock"


def test_counts_give_keywords_at_any_granularity(tmp_path: Path) -> None:
    write_cards(tmp_path, **small_corpus())
    counts = sparse.load_npz(tmp_path / TERM_COUNTS_FILE)
    terms = json.loads((tmp_path / TERMS_FILE).read_text("utf-8"))
    three = class_keywords(sum_leaves(counts, np.array([0, 1, 2, 4])), terms, top=3)
    assert set(three[0]) == {"genome", "sequence", "variant"}
    assert set(class_keywords(counts, terms, top=3)[3]) == {"oven", "flour", "butter"}
    assert sparse.load_npz(tmp_path / SOURCE_COUNTS_FILE).toarray().tolist() == [
        [12, 0],
        [12, 0],
        [0, 12],
        [0, 12],
    ]


def test_keyword_weights_are_those_of_the_formula() -> None:
    """Two classes of 4 and 6 terms, A = 5. In the first: 3/4·log(1+5/3) > 1/4·log(1+5/5)."""
    counts = sparse.csr_matrix(np.array([[3, 1, 0], [0, 4, 2]], dtype=np.float32))
    assert class_keywords(counts, ["alpha", "shared", "beta"]) == [
        ["alpha", "shared"],
        ["shared", "beta"],  # 4/6·log(2) = 0.462 against 2/6·log(1+5/2) = 0.418
    ]


def test_a_sampled_leaf_counts_as_much_as_a_complete_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustering.cards.keywords.MAX_DOCUMENTS_PER_LEAF", 5)
    leaf = np.repeat([0, 1], [5, 50]).astype(np.int64)
    counts, terms = count_terms(lambda indices: ["river delta"] * len(indices), leaf, 2)
    assert terms == ["delta", "river"]
    assert counts.toarray().tolist() == [[5, 5], [50, 50]]


def test_words_of_every_script_and_identifiers_are_terms() -> None:
    text = "snake_case HTTPServer42 straße 你好世界 x река"
    _, terms = count_terms(lambda indices: [text] * len(indices), np.zeros(1, dtype=np.int64), 1)
    assert set(terms) == {"snake", "case", "httpserver", "straße", "你好", "世界", "река"}


def test_texts_without_words_give_no_keywords(tmp_path: Path) -> None:
    corpus = small_corpus()
    corpus["texts"] = lambda indices: ["1 2 3 ..."] * len(indices)
    write_cards(tmp_path, **corpus)
    assert cards(tmp_path, 1)[0]["keywords"] == []


def test_levels_and_bounds_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a level of k domains has k \\+ 1"):
        write_cards(tmp_path, **{**small_corpus(), "levels": (1, 3, 4)})


def test_documents_must_be_in_leaf_order(tmp_path: Path) -> None:
    corpus = small_corpus()
    with pytest.raises(ValueError, match="sort the documents by leaf"):
        write_cards(tmp_path, **{**corpus, "document_leaf": corpus["document_leaf"][::-1]})
