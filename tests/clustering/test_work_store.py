"""The two work stores do the same: every test runs in a folder and against a real object store."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clustering.work.work_store import LocalWork, WorkStore, open_work
from tests.servers.store_server import StoreServer


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WorkStore:
    if request.param == "folder":
        return open_work(tmp_path / "work")
    server: StoreServer = request.getfixturevalue("s3")
    return open_work(server.address(request.getfixturevalue("new_prefix")))


def test_what_is_published_is_read_back(store: WorkStore) -> None:
    table = pa.table({"text": ["a", "b", "c"], "number": [1, 2, 3]})
    store.publish_table("read/part-00000.arrow", table)
    store.publish_array("roles/role.npy", np.arange(5, dtype=np.uint8))
    store.publish("read/done.json", b"{}")
    assert store.table("read/part-00000.arrow").equals(table)
    np.testing.assert_array_equal(store.array("roles/role.npy"), np.arange(5, dtype=np.uint8))
    assert store.content("read/done.json") == b"{}"
    assert store.exists("read/done.json")
    assert not store.exists("read/unit.json")
    assert store.names("read/") == ["read/done.json", "read/part-00000.arrow"]
    assert store.names("embed/") == []


def test_another_process_opens_the_same_store(store: WorkStore) -> None:
    store.publish("a/b.json", b"1")
    assert pickle.loads(pickle.dumps(store)).content("a/b.json") == b"1"
    assert open_work(store.address).names("a/") == ["a/b.json"]


def test_removing_a_prefix_leaves_the_others(store: WorkStore) -> None:
    store.publish("order/key", b"1")
    store.publish("order-2/key", b"2")
    store.remove("order/")
    assert not store.exists("order/key")
    assert store.content("order-2/key") == b"2"


def test_rows_of_a_batched_table(store: WorkStore) -> None:
    lists = pa.array([list(range(i % 7)) for i in range(1_000)], pa.large_list(pa.uint16()))
    table = pa.table({"number": range(1_000), "tokens": lists})
    store.publish_table("t.arrow", table, batch_rows=64)
    for begin, end in [(0, 1_000), (0, 1), (63, 65), (640, 640), (999, 1_000)]:
        found = store.rows("t.arrow", begin, end)
        assert found["number"].to_pylist() == list(range(begin, end))
        assert found["tokens"].to_pylist() == lists[begin:end].to_pylist()


def test_large_files_go_in_and_out(store: WorkStore, tmp_path: Path) -> None:
    with store.scratch() as scratch:
        (scratch / "shard").write_bytes(b"x" * 100_000)
        store.publish_file("write/shard", scratch / "shard")
    assert not scratch.exists()
    (tmp_path / "copy").write_bytes(b"old")
    store.copy_to("write/shard", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"x" * 100_000
    assert store.exists("write/shard")


def test_an_output_that_was_not_finished_has_no_name(tmp_path: Path) -> None:
    store = LocalWork(tmp_path)
    with pytest.raises(FileNotFoundError):
        store.publish_file("a/shard", tmp_path / "missing")
    assert store.names("") == []


def test_a_table_in_a_folder_is_mapped(tmp_path: Path) -> None:
    store = LocalWork(tmp_path)
    store.publish_table("t.arrow", pa.table({"a": np.arange(1_000_000)}))
    before = pa.total_allocated_bytes()
    table = store.table("t.arrow")
    assert pa.total_allocated_bytes() - before < 100_000
    assert table["a"][999_999].as_py() == 999_999
