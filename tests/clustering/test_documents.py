from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clustering.documents import DocumentStore, IngestCounts, ingest
from clustering.inputs import find_inputs
from clustering.keyed_hash import keyed, smallest, text_digest
from clustering.records import BadInput
from tests.clustering.conftest import write_lines


def ingest_folder(source: Path, target: Path, **options: Any) -> IngestCounts:
    target.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {"text_column": None, "bad": BadInput(), "part_documents": 4}
    return ingest(find_inputs(str(source)), target, **(defaults | options))


def every_text(store: DocumentStore) -> list[str]:
    return [text for part in range(store.num_parts) for text in store.part_texts(part)]


def digests_of(*texts: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    joined = b"".join(map(text_digest, texts))
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files with 12 distinct documents, 2 duplicates and 2 empty documents."""
    source = tmp_path / "source"
    source.mkdir()
    write_lines(source / "a.jsonl", [*(f"a{i}" for i in range(6)), "a0", "", " \n\t"])
    write_lines(source / "b.jsonl", ["a3", *(f"b{i}" for i in range(6))])
    return source


def test_duplicates_and_empty_documents_are_dropped_and_counted(
    folder: Path, tmp_path: Path
) -> None:
    counts = ingest_folder(folder, tmp_path / "store")
    store = DocumentStore(tmp_path / "store")
    assert every_text(store) == [f"a{i}" for i in range(6)] + [f"b{i}" for i in range(6)]
    assert (counts.read, counts.empty, counts.duplicates, counts.documents) == (16, 2, 2, 12)
    assert [store.source_names[s] for s in store.source] == ["a.jsonl"] * 6 + ["b.jsonl"] * 6
    assert store.row.tolist() == [1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 7]
    assert store.digests.tolist() == digests_of(*every_text(store)).tolist()


def test_any_document_in_any_order(folder: Path, tmp_path: Path) -> None:
    ingest_folder(folder, tmp_path / "store")
    store = DocumentStore(tmp_path / "store")
    assert store.texts(np.array([11, 0, 5, 0])) == ["b5", "a0", "a5", "a0"]
    assert store.texts(np.empty(0, dtype=np.int64)) == []


def test_a_second_ingest_replaces_what_a_killed_one_left(folder: Path, tmp_path: Path) -> None:
    ingest_folder(folder, tmp_path / "store", part_documents=1)
    ingest_folder(folder, tmp_path / "store", part_documents=100)
    assert len(list((tmp_path / "store").glob("part-*"))) == 1


def test_long_documents_end_a_part_early(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustering.documents.PART_BYTES", 6)
    ingest_folder(folder, tmp_path / "store", part_documents=100)
    assert np.diff(DocumentStore(tmp_path / "store").part_offsets).tolist() == [3, 3, 3, 3]


def test_a_sample_depends_on_texts_and_seed_only(folder: Path, tmp_path: Path) -> None:
    ingest_folder(folder, tmp_path / "one", max_documents=5, seed=1)
    (folder / "a.jsonl").rename(folder / "z.jsonl")
    counts = ingest_folder(folder, tmp_path / "two", max_documents=5, seed=1)
    ingest_folder(folder, tmp_path / "three", max_documents=5, seed=2)
    one, two, three = (
        set(every_text(DocumentStore(tmp_path / n))) for n in ("one", "two", "three")
    )
    assert one == two != three
    assert len(one) == counts.documents == 5


def test_keys_differ_by_seed_and_purpose() -> None:
    numbers = np.arange(1000, dtype=np.uint64)
    keys = [keyed(numbers, seed=s, purpose=p) for s in (0, 1) for p in ("x", "y")]
    assert len(np.unique(np.concatenate(keys))) == 4000
    assert smallest(keys[0], 10).tolist() == sorted(np.argsort(keys[0])[:10].tolist())
    assert smallest(keys[0], 5000).tolist() == list(range(1000))
