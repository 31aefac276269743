"""From files to unique documents with roles, in the work store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.documents import reading
from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import (
    CORPUS,
    DROPPED,
    HELDOUT,
    TARGET,
    DocumentRoles,
    assign_roles,
)
from clustering.documents.duplicates import find_duplicates
from clustering.documents.inputs import find_inputs
from clustering.documents.reading import ReadOptions, ReadTask, finish_reading, publish_files
from clustering.errors import BuildError
from clustering.shards import tokenizer_sample
from clustering.work.keyed_hash import text_digest
from clustering.work.smallest_keys import SmallestKeys
from clustering.work.work_store import LocalWork, RemoteWork, open_work
from tests.clustering.conftest import write_lines
from tests.servers.store_server import StoreServer


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.integers(0, 9), max_size=60), count=st.integers(0, 20))
def test_smallest_keys(keys: list[int], count: int) -> None:
    found = SmallestKeys(count)
    numbers = np.array(keys, dtype=np.uint64)
    for begin in range(0, len(keys), 7):
        found.add(numbers[begin : begin + 7], np.arange(begin, min(begin + 7, len(keys))))
    assert found.documents().tolist() == np.argsort(numbers, kind="stable")[:count].tolist()


def read(
    folder: Path, work: Path | str, *, part_documents: int = 3, id_column: str | None = None
) -> DocumentParts:
    store = open_work(work)
    units = publish_files(store, "read", find_inputs(str(folder)))
    options = ReadOptions(
        text_column=None, id_column=id_column, on_bad_input="fail", part_documents=part_documents
    )
    task = ReadTask(store=store, prefix="read", options=options)
    for unit in reversed(range(units)):
        task(unit)
    finish_reading(store, "read", units)
    return DocumentParts(store)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files; `b` and `d` come twice, once in another file."""
    texts = {"one": "abcb", "three": "ghi", "two": "defd"}
    (tmp_path / "in").mkdir()
    for name, letters in texts.items():
        lines = [json.dumps({"text": f"text {c}", "name": f"{name} {c}"}) for c in letters]
        (tmp_path / "in" / f"{name}.jsonl").write_text("\n".join([*lines, '{"text": " "}']))
    return tmp_path / "in"


@pytest.mark.parametrize("unit_bytes", [1, 10**6])
def test_documents_are_numbered_through_the_files(
    tmp_path: Path, folder: Path, unit_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNIT_BYTES", unit_bytes)
    documents = read(folder, tmp_path / "work")
    order = "abcbghidefd"
    assert documents.texts(np.arange(len(documents))) == [f"text {c}" for c in order]
    assert documents.texts(np.array([10, 0, 4])) == ["text d", "text a", "text g"]
    digests = np.concatenate([documents.digests(part) for part in range(documents.num_parts)])
    assert [row.tobytes() for row in digests] == [text_digest(f"text {c}") for c in order]
    assert documents.ids(0)[0] == "one.jsonl:1"
    assert (np.diff(documents.part_offsets) <= 3).all()


def test_a_part_ends_early_at_so_many_bytes_of_text_in_any_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PART_BYTES", 100)
    (tmp_path / "in").mkdir()
    for name, letter in (("a", "z"), ("b", "\u4e2d")):
        texts = [f"{letter * 20}{number}" for number in range(10)]
        write_lines(tmp_path / "in" / f"{name}.jsonl", texts)
    documents = read(tmp_path / "in", tmp_path / "work", part_documents=100)
    # Of 21 bytes each, then of 61.
    assert np.diff(documents.part_offsets).tolist() == [5, 5, 2, 2, 2, 2, 2]


def test_texts_at_hand_are_fetched_from_an_object_store_once(
    folder: Path, s3: StoreServer, new_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(folder, s3.address(new_prefix), part_documents=1)
    fetched: list[str] = []
    table = RemoteWork.table

    def counted(store: RemoteWork, name: str) -> Any:
        fetched.append(name)
        return table(store, name)

    monkeypatch.setattr(RemoteWork, "table", counted)
    documents = DocumentParts(open_work(s3.address(new_prefix)))
    chosen = np.array([10, 0, 4, 2, 7])
    with documents.at_hand(chosen) as texts:
        for wanted in ([10], [0, 7, 10], [2, 2, 4], []):
            assert texts(np.array(wanted, dtype=int)) == [
                f"text {'abcbghidefd'[i]}" for i in wanted
            ]
    assert len(fetched) == len(set(fetched)) == len(chosen)
    with documents.at_hand(np.array([], dtype=int)) as texts:
        assert texts(np.array([], dtype=int)) == []


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_tokenizer_is_trained_on_so_many_characters_by_key(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(tokenizer_sample, "CHUNK_DOCUMENTS", chunk)
    documents = read(folder, tmp_path / "work")
    store = LocalWork(tmp_path / "work")
    find_duplicates(store, documents, max_documents=None, seed=0)
    assign_roles(store, documents, np.empty((0, 2), np.uint64), heldout_share=0.0, seed=0)
    roles = DocumentRoles(store, documents.part_offsets)
    told: list[int] = []
    texts = list(tokenizer_sample.training_texts(documents, roles, 3, told.append))
    assert sorted(texts) == [f"text {c}" for c in "abcdefghi"]
    assert documents.lengths(np.arange(3)).tolist() == [6, 6, 6]
    monkeypatch.setattr(tokenizer_sample, "TRAINING_CHARACTERS", 20)
    cut = list(tokenizer_sample.training_texts(documents, roles, 3, told.append))
    assert cut == [*texts[:3], texts[3][:2]]
    assert sum(told) == len(texts) + len(cut)


def test_ids_come_from_a_column(tmp_path: Path, folder: Path) -> None:
    for path in folder.iterdir():
        path.write_text(path.read_text().rsplit("\n", 1)[0])
    documents = read(folder, tmp_path / "work", id_column="name")
    assert documents.ids(0) == ["one a", "one b", "one c"]


def test_the_first_of_equal_texts_stays_and_is_counted(tmp_path: Path, folder: Path) -> None:
    documents = read(folder, tmp_path / "work")
    store = LocalWork(tmp_path / "work")
    facts = find_duplicates(store, documents, max_documents=None, seed=0)
    roles = DocumentRoles(store, documents.part_offsets)
    copies = np.concatenate([roles.copies(part) for part in range(documents.num_parts)])
    assert copies.tolist() == [1, 2, 1, 0, 1, 1, 1, 2, 1, 1, 0]
    assert facts == {"duplicates": 2, "remain": 9}


def test_a_sample_keeps_counts_and_follows_the_texts(tmp_path: Path, folder: Path) -> None:
    documents = read(folder, tmp_path / "work")
    store = LocalWork(tmp_path / "work")
    facts = find_duplicates(store, documents, max_documents=4, seed=3)
    copies = store.array("dedupe/copies.npy")
    assert facts["remain"] == np.count_nonzero(copies) == 4
    renamed = tmp_path / "again"
    renamed.mkdir()
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        (renamed / f"{number}.jsonl").write_bytes(path.read_bytes())
    again = read(renamed, tmp_path / "work2")
    other = LocalWork(tmp_path / "work2")
    find_duplicates(other, again, max_documents=4, seed=3)
    chosen = documents.texts(np.flatnonzero(copies))
    assert set(chosen) == set(again.texts(np.flatnonzero(other.array("dedupe/copies.npy"))))


def test_roles(tmp_path: Path, folder: Path) -> None:
    documents = read(folder, tmp_path / "work")
    store = LocalWork(tmp_path / "work")
    find_duplicates(store, documents, max_documents=None, seed=0)
    target = np.frombuffer(text_digest("text g") + text_digest("text z"), dtype="<u8")
    facts = assign_roles(store, documents, target.reshape(-1, 2), heldout_share=0.25, seed=0)
    assert facts == {"corpus": 6, "heldout": 2, "in_targets": 1}
    role = store.array("roles/role.npy")
    assert role[4] == TARGET
    assert (role[[3, 10]] == DROPPED).all()
    assert np.flatnonzero(role == HELDOUT).tolist() == sorted(store.array("roles/heldout.npy"))
    roles = DocumentRoles(store, documents.part_offsets)
    rows = [
        roles.corpus(part) + documents.part_offsets[part] for part in range(documents.num_parts)
    ]
    assert np.concatenate(rows).tolist() == np.flatnonzero(role == CORPUS).tolist()


def test_nothing_left_for_the_corpus(tmp_path: Path, folder: Path) -> None:
    documents = read(folder, tmp_path / "work")
    store = LocalWork(tmp_path / "work")
    find_duplicates(store, documents, max_documents=None, seed=0)
    everything = np.concatenate([documents.digests(part) for part in range(documents.num_parts)])
    with pytest.raises(BuildError, match=r"no document is left .* of 9 unique.*--heldout-share"):
        assign_roles(store, documents, everything, heldout_share=0.1, seed=0)
