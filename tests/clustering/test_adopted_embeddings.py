"""Vectors from elsewhere, joined to documents by id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from clustering.embedding import adopted_embeddings
from clustering.embedding.adopted_embeddings import Adopted, adopt_embeddings
from clustering.embedding.embedding_parts import EmbeddingParts, part_name, publish_vectors
from clustering.embedding.foreign_embeddings import find_foreign
from clustering.errors import InputError
from clustering.work.work_store import LocalWork

DIMENSIONS = 6
IDS = [f"doc {number}" for number in range(500)]
VECTORS = np.random.default_rng(0).standard_normal((500, DIMENSIONS)) * 3


class Parts:
    """Documents in parts of given sizes, by default the first of `IDS`."""

    def __init__(self, *sizes: int, ids: list[str] = IDS) -> None:
        self.offsets: NDArray[np.int64] = np.cumsum([0, *sizes], dtype=np.int64)
        self._ids = ids

    def ids(self, part: int) -> list[str]:
        return self._ids[self.offsets[part] : self.offsets[part + 1]]

    def name(self, part: int) -> str:
        return part_name(part)


def columns(ids: Any, vectors: Any, **names: str) -> pa.Table:
    lists = vectors if isinstance(vectors, pa.Array) else pa.array(list(map(list, vectors)))
    return pa.table({names.get("id", "id"): ids, names.get("vector", "embedding"): lists})


def adopt(source: Path, store: LocalWork, *sizes: int) -> Adopted:
    documents: list[int] = []
    adopted = adopt_embeddings(
        find_foreign(source),
        Parts(*sizes),
        store,
        remedy="Embed them.",
        advance=documents.append,
    )
    assert sum(documents) == sum(sizes)
    return adopted


def assert_adopted(store: LocalWork, expected: NDArray[np.floating[Any]]) -> None:
    parts = EmbeddingParts(store)
    found = np.concatenate([parts.part(part) for part in range(len(store.names("embed/")))])
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, unit, atol=1e-3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "vectors"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> LocalWork:
    return LocalWork(tmp_path / "work")


def test_shuffled_files_of_every_kind_are_joined_by_id(
    source: Path, store: LocalWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopted_embeddings, "SORT_BYTES", 2_000)  # dozens of runs
    order = np.random.default_rng(1).permutation(500)
    ids, vectors = [IDS[row] for row in order], VECTORS[order]
    single = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors[:200].astype(np.float32).reshape(-1)), DIMENSIONS
    )
    pq.write_table(columns(ids[:200], single), source / "a.parquet", row_group_size=64)
    half = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors[200:300].astype(np.float16).reshape(-1)), DIMENSIONS
    )
    feather.write_feather(
        columns(ids[200:300], half, vector="vector"), source / "b.feather", compression="zstd"
    )
    unwanted = columns([*ids[300:], "nobody's"], [*vectors[300:], [0.0] * DIMENSIONS], id="doc_id")
    LocalWork(source).publish_table("more/c.arrow", unwanted)
    adopted = adopt(source, store, 120, 0, 380)
    assert adopted == Adopted(documents=500, dimensions=6, ignored=1, lined_up=False)
    assert_adopted(store, VECTORS)


def test_the_vectors_of_another_build_are_taken_part_by_part(
    source: Path, store: LocalWork
) -> None:
    other = LocalWork(source)
    for part, (begin, end) in enumerate([(0, 300), (300, 300), (300, 500)]):
        publish_vectors(other, part_name(part), IDS[begin:end], VECTORS[begin:end])
    assert adopt(source / "embed", store, 300, 0, 200).lined_up
    assert_adopted(store, VECTORS)
    # Nothing of the first part may have been kept.
    store.remove("embed/")
    for part, (begin, end) in enumerate([(0, 0), (0, 300), (300, 500)]):
        publish_vectors(other, part_name(part), IDS[begin:end], VECTORS[begin:end])
    assert adopt(source / "embed", store, 0, 300, 200).lined_up
    assert_adopted(store, VECTORS)
    # Parts of other sizes hold the same vectors.
    store.remove("embed/")
    assert not adopt(source / "embed", store, 100, 400).lined_up
    assert_adopted(store, VECTORS)


def test_whole_numbers_are_ids(source: Path, store: LocalWork) -> None:
    pq.write_table(columns(pa.array([7, 12]), VECTORS[:2]), source / "a.parquet")
    wanted = Parts(2, ids=["12", "7"])
    adopt_embeddings(find_foreign(source), wanted, store, remedy="", advance=lambda _: None)
    assert_adopted(store, VECTORS[[1, 0]])


def bad(what: str) -> pa.Table:
    ids, vectors = IDS[:20], VECTORS[:20].copy()
    if what == "missing":
        return columns(ids[2:], vectors[2:])
    if what == "twice":
        return columns([*ids, ids[4]], [*vectors, vectors[4]])
    if what == "infinite":
        vectors[3, 2] = np.inf
    if what == "not a number":
        vectors[3, 2] = np.nan
    if what == "zero":
        vectors[3] = 0
    if what == "lengths":
        return columns(ids, [*map(list, vectors[1:]), [1.0, 2.0]])
    if what == "null":
        return columns(ids, pa.array([*map(list, vectors[1:]), None]))
    if what == "text":
        return columns(ids, pa.array(["0.1"] * 20))
    if what == "id type":
        return columns(pa.array(np.arange(20.0)), vectors)
    if what == "columns":
        return columns(ids, vectors, vector="numbers")
    return columns(ids, vectors)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "no vector for 2 of 20 documents: 'doc 0', 'doc 1'.*Embed them"),
        ("twice", "more than once in --embeddings: 'doc 4'"),
        ("infinite", "row 3 has the norm inf"),
        ("not a number", "row 3 has the norm nan"),
        ("zero", "row 3 has the norm 0.0"),
        ("lengths", "vectors of 2 to 6 numbers"),
        ("null", "1 nulls; vectors are lists"),
        ("text", "holds string with 0 nulls; vectors are lists"),
        ("id type", "holds double with 0 nulls; ids are strings"),
        ("columns", "no column with vectors; .* the file has id, numbers"),
    ],
)
def test_what_cannot_be_joined_is_refused(
    what: str, message: str, source: Path, store: LocalWork
) -> None:
    pq.write_table(bad(what), source / "a.parquet")
    with pytest.raises(InputError, match=message):
        adopt(source, store, 15, 5)


def test_files_of_two_models_are_refused(source: Path, store: LocalWork) -> None:
    pq.write_table(columns(IDS[:10], VECTORS[:10]), source / "a.parquet")
    pq.write_table(columns(IDS[10:20], VECTORS[10:20, :4]), source / "b.parquet")
    with pytest.raises(
        InputError, match=r"b.parquet: vectors of 4 numbers, and of 6 in the files before"
    ):
        adopt(source, store, 20)
    with pytest.raises(InputError, match=r"vectors of 4 numbers"):
        adopt(source, store, 10, 10)


def test_two_documents_of_one_id_are_refused(source: Path, store: LocalWork) -> None:
    pq.write_table(columns(["a", "b"], VECTORS[:2]), source / "a.parquet")
    wanted = Parts(3, ids=["a", "b", "a"])
    with pytest.raises(InputError, match="more than once in the documents: 'a'"):
        adopt_embeddings(find_foreign(source), wanted, store, remedy="", advance=lambda _: None)


def test_a_folder_without_vectors_or_with_a_broken_file_is_refused(source: Path) -> None:
    (source / "readme.txt").write_text("nothing", "utf-8")
    with pytest.raises(InputError, match=r"no file with vectors; files end in \.arrow"):
        find_foreign(source)
    (source / "a.arrow").write_bytes(b"ARROW1 no more")
    with pytest.raises(InputError, match=r"a\.arrow: cannot be read as Arrow"):
        find_foreign(source)
