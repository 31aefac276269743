"""Cards from parts: what they say adds up, and does not depend on how the documents were cut into parts."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.cards import count_files, excerpt
from clustering.cards.neighbors import nearest_domains
from clustering.cards.writing import CODE, UNDETERMINED, is_code, language_of, script_letters
from tests.clustering.described import cards_of, tree_of, unit, write_described

LINES = (
    "The court held that the tenant must give notice to the landlord in writing, number {}.",
    "Der Mieter kündigt dem Vermieter die Wohnung schriftlich und mit Begründung, Nummer {}.",
    "Chop the onion and fry it gently with garlic in plenty of butter for minutes, number {}.",
    "x[{0}] = {{{0}: 0x{0}, 1: [2, 3, 4]}}; y += 1;",
)
TREE = tree_of([0, 0], [0, 0, 1, 1], split_order=[2, 1, 3])
OFFSETS = np.array([0, 5, 9, 9, 20])
COUNT = 80
LEAF = np.random.default_rng(0).integers(0, 4, COUNT)
TEXTS = [LINES[LEAF[i]].format(i) for i in range(COUNT)]
TOKENS = 3 + np.arange(COUNT) % 7
VECTORS = unit(np.random.default_rng(1).normal(size=(COUNT, 16)))


def described(folder: Path, part_documents: int = 30, leaf: NDArray[np.int64] = LEAF) -> Path:
    """The cards of 80 documents in 4 leaves, out of parts of a given size."""
    out = folder / "corpus"
    written = write_described(
        out,
        folder / "work",
        TREE,
        texts=TEXTS,
        leaf=leaf,
        source=leaf // 2,
        source_names=["texts.jsonl", "code.jsonl"],
        tokens=TOKENS,
        leaf_offsets=OFFSETS,
        vectors=VECTORS,
        copies=np.where(leaf == 0, 2, 1).astype(np.uint32),
        part_documents=part_documents,
    )
    assert written == sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    return out


@pytest.mark.parametrize("sample", [400_000, 12])
def test_cards_are_the_same_bytes_whatever_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: int
) -> None:
    monkeypatch.setattr("clustering.cards.terms.MAX_DOCUMENTS", sample)
    whole, pieces = described(tmp_path / "whole", COUNT), described(tmp_path / "pieces", 7)
    monkeypatch.setattr("clustering.cards.leaf_facts.GATHERED_ROWS", 10)
    monkeypatch.setattr("clustering.cards.centers.VECTORS_PER_READ", 11)
    thinned = described(tmp_path / "thinned", 13)
    for path in sorted(p for p in whole.rglob("*") if p.is_file()):
        name = path.relative_to(whole)
        assert (pieces / name).read_bytes() == path.read_bytes(), name
        assert (thinned / name).read_bytes() == path.read_bytes(), name
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                assert {member.date_time[0] for member in archive.infolist()} == {1980}, "no clock"


def test_cards_say_what_a_domain_is(tmp_path: Path) -> None:
    out = described(tmp_path)
    for level, k in enumerate(TREE.levels):
        rows = cards_of(out, level)
        assert [row["domain"] for row in rows] == list(range(k))
        assert sum(row["documents"] for row in rows) == COUNT
        assert sum(row["tokens"] for row in rows) == TOKENS.sum()
        assert sum(row["samples"] for row in rows) == 20
    law, recht, cooking, code = cards_of(out, 2)
    assert [row["parent"] for row in (law, recht, cooking, code)] == [0, 0, 1, 1]
    assert law["sources"] == [
        {"source": "texts.jsonl", "documents": law["documents"], "share": 1.0}
    ]
    assert len(cards_of(out, 0)[0]["sources"]) == 2
    assert law["duplicate_share"] == 0.5
    assert recht["duplicate_share"] == 0
    assert "tenant" in law["keywords"]
    assert "mieter" in recht["keywords"]
    assert (law["languages"], recht["languages"]) == ({"en": 1.0}, {"de": 1.0})
    assert code["languages"] == {CODE: 1.0}
    assert cooking["scripts"] == {"Latin": 1.0}
    assert [row["domain"] for row in law["nearest"]] == nearest(TREE.centroids[1], 0)
    assert "nearest" not in cards_of(out, 0)[0]


def nearest(vectors: NDArray[np.float32], domain: int) -> list[int]:
    similarity = vectors @ vectors[domain]
    return [i for i in np.argsort(-similarity).tolist() if i != domain]


def test_counts_per_leaf_stand_beside_the_cards(tmp_path: Path) -> None:
    out = described(tmp_path)
    counts_file, names_file = count_files("source")
    assert json.loads((out / names_file).read_text("utf-8")) == ["texts.jsonl", "code.jsonl"]
    sizes = np.bincount(LEAF)
    counts = sparse.load_npz(out / counts_file).toarray()
    assert counts.tolist() == [[sizes[0], 0], [sizes[1], 0], [0, sizes[2]], [0, sizes[3]]]
    terms, names = (out / file for file in count_files("term"))
    tenant = json.loads(names.read_text("utf-8")).index("tenant")
    assert sparse.load_npz(terms).toarray()[:, tenant].tolist() == [sizes[0], 0, 0, 0]


def test_examples_are_the_nearest_to_the_center_of_the_domain_and_the_farthest(
    tmp_path: Path,
) -> None:
    """Of every level: the vectors lie anywhere, so what is near a leaf's center is not near its parent's."""
    out = described(tmp_path)
    sizes = np.bincount(LEAF)
    root = (sizes[:2].sum(), sizes[2:].sum()) @ TREE.centroids[0]
    centers = [(root / np.linalg.norm(root))[None], *TREE.centroids]
    domain_of_leaf = [np.zeros(4, dtype=int), np.array([0, 0, 1, 1]), np.arange(4)]
    shown = []
    for level, (center, domain) in enumerate(zip(centers, domain_of_leaf, strict=True)):
        distance = 1 - (VECTORS * center[domain[LEAF]]).sum(axis=1)
        for row in cards_of(out, level):
            here = np.flatnonzero(domain[LEAF] == row["domain"])
            order = here[np.argsort(distance[here])]
            assert [one["document"] for one in row["examples"]] == order[:3].tolist()
            assert row["farthest"]["document"] == order[-1]
            assert row["examples"][0]["text"] == excerpt(TEXTS[order[0]])
            assert row["examples"][0]["distance"] == pytest.approx(distance[order[0]], abs=2e-3)
            shown.append(tuple(order[:3]))
    assert len(set(shown)) == 7, "each domain has examples of its own"


def test_small_and_empty_leaves(tmp_path: Path) -> None:
    """A leaf with one document shows it once; one without any says so."""
    leaf = np.where(LEAF == 2, 1, LEAF)
    leaf[0] = 2
    one = cards_of(described(tmp_path / "one", leaf=leaf), 2)[2]
    assert [row["document"] for row in one["examples"]] == [0]
    assert one["farthest"] is None
    empty = cards_of(described(tmp_path / "empty", leaf=np.where(leaf == 2, 1, leaf)), 2)[2]
    assert (empty["documents"], empty["tokens"], empty["examples"]) == (0, 0, [])
    assert (empty["keywords"], empty["sources"], empty["farthest"]) == ([], [], None)
    assert (empty["languages"], empty["scripts"]) == ({}, {})


def test_neighbors_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustering.cards.neighbors.CHUNK_SIMILARITIES", 100)
    vectors = unit(np.random.default_rng(0).normal(size=(50, 8)))
    nearest, cosine = nearest_domains(vectors, 4)
    similarity = vectors @ vectors.T - 2 * np.eye(50)
    assert np.array_equal(nearest, np.argsort(-similarity, axis=1)[:, :4])
    assert np.allclose(cosine, -np.sort(-similarity, axis=1)[:, :4], atol=1e-5)
    assert nearest_domains(vectors[:1], 4)[0].shape == (1, 0)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (LINES[0], "en"),
        ("我把鸡蛋打散 加入盐和葱花 放进锅里用小火慢慢煎 最后切成小块装盘就可以吃了", "zh"),
        # The identifier takes the first for Cantonese, and the second for nothing with any confidence.
        ("君問歸期未有期 巴山夜雨漲秋池 何當共剪西窗燭 卻話巴山夜雨時", "zh"),
        (
            "白日依山盡 黃河入海流 欲窮千里目 更上一層樓 千山鳥飛絕 萬徑人蹤滅 孤舟簑笠翁 獨釣寒江雪",
            "zh",
        ),
        ("", UNDETERMINED),
        ("0 1 2 3 " * 50, UNDETERMINED),
        ("ok", UNDETERMINED),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


CODE_TEXTS: dict[str, tuple[Any, bool]] = {
    "c": (
        "/* Copyright of the authors. Permission is granted to use this file. */\n"
        "static int\nlength(const char *begin)\n{\n    const char *end = begin;\n"
        "    while (*end != '\\0')\n        end++;\n    return (int)(end - begin);\n}\n",
        True,
    ),
    "python": (
        "def mean(values: list[float]) -> float:\n    total = 0.0\n"
        "    for value in values:\n        total += value\n    return total / len(values)\n",
        True,
    ),
    "javascript": (
        "const links = [...document.querySelectorAll('a')].map((a) => a.href);\n"
        "export function show(links) {\n  return links.join('\\n');\n}\n",
        True,
    ),
    "manual": (
        "The option names the folder where results are written. When it is missing, the program makes it\n"
        "and says so; when it is there already, nothing in it is changed unless you ask for that.\n\n"
        "    tool --out results/ --force\n",
        False,
    ),
    "citations": (
        "The theorem (see Smith and Jones, 1999) holds in every case, as was shown by many authors before.",
        False,
    ),
    "verse": (
        "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate;\n"
        "Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date.",
        False,
    ),
    "nothing": ("", False),
}


@pytest.mark.parametrize("kind", CODE_TEXTS)
def test_code_is_told_from_prose(kind: str) -> None:
    text, expected = CODE_TEXTS[kind]
    assert is_code(text) == expected
    assert (language_of(text) == CODE) == expected


def test_letters_are_counted_by_script() -> None:
    assert script_letters("abc 123 где 你好") == [3, 0, 3, 0, 0, 0, 0, 0, 2, 0, 0]
