"""Documents to vectors, part by part."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clustering.documents.document_parts import DocumentParts
from clustering.documents.document_roles import DocumentRoles
from clustering.documents.duplicates import find_duplicates
from clustering.documents.inputs import find_inputs
from clustering.documents.reading import ReadOptions, ReadTask, finish_reading, publish_files
from clustering.embedding.embed_task import (
    EmbedTargetsTask,
    EmbedTask,
    prepare_static,
    stored_embedder,
    target_pieces,
)
from clustering.embedding.embedder import EmbedderChoice, choose_dtype
from clustering.embedding.embedding_parts import EmbeddingParts
from clustering.engines.local_engine import LocalEngine
from clustering.work.work_store import LocalWork
from tests.clustering.conftest import KINDS, documents_of, write_lines

pytestmark = pytest.mark.usefixtures("quick_static")

STATIC = EmbedderChoice(model="static", dtype=choose_dtype("auto", "cpu", "torch"), backend="torch")
TEXTS = [text for kind in KINDS for text in documents_of(kind, 10)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalWork:
    """41 documents in parts of 16, the third a copy of the first."""
    tmp_path = tmp_path_factory.mktemp("embed")
    raw = write_lines(tmp_path / "raw.jsonl", [*TEXTS[:2], TEXTS[0], *TEXTS[2:]])
    store = LocalWork(tmp_path / "work")
    options = ReadOptions(text_column=None, id_column=None, on_bad_input="fail", part_documents=16)
    units = publish_files(store, "read", find_inputs(str(raw)))
    LocalEngine().run(
        ReadTask(store=store, prefix="read", options=options), range(units), lambda _: None
    )
    finish_reading(store, "read", units)
    find_duplicates(store, DocumentParts(store), max_documents=None, seed=0)
    return store


def task_of(store: LocalWork) -> EmbedTask:
    """The task, with nothing embedded yet; the static model is distilled by the first test."""
    store.remove("embed/")
    prepare_static(store, STATIC, "cpu")
    return EmbedTask(store=store, choice=STATIC, place="cpu")


def test_kept_documents_are_embedded_by_part(store: LocalWork) -> None:
    task: EmbedTask = pickle.loads(pickle.dumps(task_of(store)))
    counts: list[int] = []
    LocalEngine().run(task, range(3), counts.append)
    assert counts == [15, 16, 9]
    vectors = EmbeddingParts(store)
    assert vectors.dimensions == 8
    expected = stored_embedder(store, STATIC, "cpu").embed(TEXTS).astype(np.float16)
    np.testing.assert_array_equal(np.concatenate([vectors.part(p) for p in range(3)]), expected)
    documents = DocumentParts(store)
    numbers = np.array([40, 0, 17, 1, 3])
    found = vectors.rows(numbers, documents, DocumentRoles(store, documents.part_offsets))
    np.testing.assert_array_equal(found, expected[[39, 0, 16, 1, 2]])


def test_any_reader_of_arrow_opens_a_part(store: LocalWork) -> None:
    task_of(store)(0)
    path = store.folder / "embed" / "part-00000.arrow"
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table["document"][:3].to_pylist() == ["raw.jsonl:1", "raw.jsonl:2", "raw.jsonl:4"]
    assert table.schema.field("vector").type == pa.list_(pa.float16(), 8)
    norms = np.linalg.norm(np.array(table["vector"].to_pylist(), dtype=np.float32), axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)


def test_a_part_has_the_same_bytes_whoever_embeds_it(store: LocalWork) -> None:
    task = task_of(store)
    path = store.folder / "embed" / "part-00001.arrow"
    task(1)
    here = path.read_bytes()
    store.remove("embed/")
    LocalEngine(workers=2).run(task, [0, 1, 2], lambda _: None)
    assert path.read_bytes() == here


def test_the_static_model_is_distilled_once(store: LocalWork) -> None:
    prepare_static(store, STATIC, "cpu")
    before = (store.folder / "static-model" / "modules.json").stat().st_mtime_ns
    prepare_static(store, STATIC, "cpu")
    assert (store.folder / "static-model" / "modules.json").stat().st_mtime_ns == before


def test_only_a_transformer_on_cuda_asks_for_a_gpu(tmp_path: Path) -> None:
    minilm = EmbedderChoice(model="minilm", dtype="bfloat16", backend="torch")
    store = LocalWork(tmp_path)
    assert EmbedTask(store=store, choice=minilm, place="cuda").device == "cuda"
    assert EmbedTask(store=store, choice=minilm, place="cuda:1").device == "cpu"
    assert EmbedTask(store=store, choice=STATIC, place="cuda").device == "cpu"
    pieces = target_pieces({"a": 513, "b": 1})
    assert pieces == (("a", 0), ("a", 1), ("b", 0))
    targets = EmbedTargetsTask(store=store, choice=minilm, place="cuda", pieces=pieces)
    assert targets.device == "cuda"
