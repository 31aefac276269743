"""Cards from parts: what they say does not depend on how the documents were cut into parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clustering.cards.card_files import describe_corpus
from clustering.cards.cards import card_file
from clustering.cards.describe_task import DescribeTask
from clustering.cards.neighbors import nearest_domains
from clustering.cards.writing import UNDETERMINED, language_of, script_letters
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import CORPUS, ROLE
from clustering.documents.duplicates import COPIES
from clustering.documents.reading import FILES, PARTS
from clustering.shards.token_parts import tokens_name
from clustering.trees.assignment import assigned_name
from clustering.trees.tree import Tree
from clustering.work.keyed_hash import text_digest
from clustering.work.work_store import LocalWork

LINES = (
    "The court held that the tenant must give notice to the landlord in writing, number {}.",
    "Der Mieter kündigt dem Vermieter die Wohnung schriftlich und mit Begründung, Nummer {}.",
    "Chop the onion and fry it gently with garlic in plenty of butter for minutes, number {}.",
    "x[{0}] = {{{0}: 0x{0}, 1: [2, 3, 4]}}; y += 1;",
)
TREE = Tree(
    centroids=(
        np.eye(2, 4, dtype=np.float32),
        np.eye(4, dtype=np.float32),
    ),
    parents=(np.zeros(2, dtype=np.int64), np.array([0, 0, 1, 1])),
    split_order=np.array([2, 1, 3]),
)
OFFSETS = np.array([0, 5, 9, 9, 20])


def described(folder: Path, part_documents: int) -> Path:
    """The cards of 80 documents in 4 leaves, out of parts of a given size."""
    store = LocalWork(folder / "work")
    rng = np.random.default_rng(0)
    leaf = rng.integers(0, 4, 80).astype(np.int32)
    distance = rng.random(80).astype(np.float32)
    texts = [LINES[leaf[i]].format(i) for i in range(80)]
    copies = np.where(leaf == 0, 2, 1).astype(np.uint32)
    names, sizes = [], []
    for part, begin in enumerate(range(0, 80, part_documents)):
        here = slice(begin, begin + part_documents)
        size = len(texts[here])
        names.append(f"read/parts-00000-{part:03}.arrow")
        sizes.append(size)
        columns = {
            "text": pa.array(texts[here], pa.large_string()),
            "source": pa.array(leaf[here] // 2),
            "row": np.arange(size),
            "digest": pa.array([text_digest(text) for text in texts[here]], pa.binary(16)),
        }
        store.publish_table(names[-1], pa.table(columns))
        assigned = pa.table({"leaf": leaf[here], "distance": distance[here]})
        store.publish_table(assigned_name(part), assigned)
        lists = pa.array([[1] * (3 + i % 7) for i in range(80)][here], pa.large_list(pa.uint16()))
        store.publish_table(tokens_name(part), pa.table({"tokens": lists}))
    store.publish(f"read/{PARTS}", json.dumps({"names": names, "documents": sizes}).encode())
    store.publish_table(f"read/{FILES}", pa.table({"name": ["texts.jsonl", "code.jsonl"]}))
    store.publish_array(COPIES, copies)
    store.publish_array(ROLE, np.full(80, CORPUS, dtype=np.uint8))
    task = DescribeTask(store=store, num_leaves=4, seed=0)
    for part in reversed(range(DocumentParts(store).num_parts)):
        task(part)
    out = folder / "corpus"
    written = describe_corpus(out, store, TREE, OFFSETS)
    assert written == sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    return out


def cards(out: Path, level: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / card_file(level)).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("sample", [400_000, 12])
def test_cards_are_the_same_bytes_whatever_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: int
) -> None:
    monkeypatch.setattr("clustering.cards.keywords.MAX_DOCUMENTS", sample)
    whole, pieces = described(tmp_path / "whole", 80), described(tmp_path / "pieces", 7)
    monkeypatch.setattr("clustering.cards.leaf_facts.GATHERED_ROWS", 10)
    thinned = described(tmp_path / "thinned", 13)
    for path in sorted(p for p in whole.rglob("*") if p.is_file()):
        name = path.relative_to(whole)
        assert (pieces / name).read_bytes() == path.read_bytes(), name
        assert (thinned / name).read_bytes() == path.read_bytes(), name


def test_cards_say_what_a_domain_is(tmp_path: Path) -> None:
    out = described(tmp_path, 30)
    for level, k in enumerate(TREE.levels):
        rows = cards(out, level)
        assert [row["domain"] for row in rows] == list(range(k))
        assert sum(row["documents"] for row in rows) == 80
        assert sum(row["tokens"] for row in rows) == sum(3 + i % 7 for i in range(80))
        assert sum(row["samples"] for row in rows) == 20
    law, recht, cooking, code = cards(out, 2)
    assert law["duplicate_share"] == 0.5
    assert recht["duplicate_share"] == 0
    assert "tenant" in law["keywords"]
    assert "mieter" in recht["keywords"]
    assert (law["languages"], recht["languages"]) == ({"en": 1.0}, {"de": 1.0})
    assert code["languages"] == {UNDETERMINED: 1.0}
    assert cooking["scripts"] == {"Latin": 1.0}
    assert len(law["examples"]) == 3
    assert law["farthest"]["distance"] >= law["examples"][-1]["distance"]
    assert [row["domain"] for row in law["nearest"]] == [1, 2, 3]
    assert "nearest" not in cards(out, 0)[0]


def test_neighbors_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustering.cards.neighbors.CHUNK_SIMILARITIES", 100)
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest, cosine = nearest_domains(vectors, 4)
    similarity = vectors @ vectors.T - 2 * np.eye(50)
    assert np.array_equal(nearest, np.argsort(-similarity, axis=1)[:, :4])
    assert np.allclose(cosine, -np.sort(-similarity, axis=1)[:, :4], atol=1e-5)
    assert nearest_domains(vectors[:1], 4)[0].shape == (1, 0)


def test_language_is_told_of_prose_only() -> None:
    assert language_of(LINES[0]) == "en"
    assert (
        language_of("我把鸡蛋打散 加入盐和葱花 放进锅里用小火慢慢煎 最后切成小块装盘就可以吃了")
        == "zh"
    )
    assert language_of("") == language_of("0 1 2 3 " * 50) == language_of("ok") == UNDETERMINED


def test_letters_are_counted_by_script() -> None:
    assert script_letters("abc 123 где 你好") == [3, 0, 3, 0, 0, 0, 0, 0, 2, 0, 0]
