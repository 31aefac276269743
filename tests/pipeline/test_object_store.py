"""The object store against real servers: what it reads, what it refuses, what it survives, how it fails."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import random
import re
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.stores.object_store import PART_BYTES, ObjectFacts, ObjectStore
from pipeline.stores.retries import Retries
from tests.servers import fake_gcs as gcs
from tests.servers import seaweedfs
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.servers.file_server import FileServer
from tests.servers.store_server import StoreServer, free_ports

CONTENT = random.Random(3).randbytes(100_000)
IMPATIENT = Retries(attempts=3, request_seconds=1)
PATIENT = Retries(attempts=12, request_seconds=1)

StartProxy = Callable[[StoreServer], FaultProxy]


@pytest.fixture
def s3_store(s3: StoreServer, new_prefix: str) -> ObjectStore:
    store = ObjectStore(s3.address(new_prefix), retries=IMPATIENT)
    store.write("shards/a b.bin", CONTENT)
    return store


@pytest.fixture
def files(file_server: FileServer, new_prefix: str) -> StoreServer:
    (file_server.folder / new_prefix).mkdir()
    (file_server.folder / new_prefix / "a.bin").write_bytes(CONTENT)
    (file_server.folder / "outside.bin").write_bytes(b"not yours")
    return file_server.store


def assert_reads(store: ObjectStore, name: str) -> None:
    assert store.size(name) == len(CONTENT)
    assert store.read(name) == CONTENT
    assert store.read_range(name, 0, 1) == CONTENT[:1]
    assert store.read_range(name, 70_000, 100_000) == CONTENT[70_000:]
    assert store.read_range(name, 500, 500) == b""


def test_s3_reads_and_writes(s3_store: ObjectStore) -> None:
    assert_reads(s3_store, "shards/a b.bin")
    s3_store.write("empty", b"")
    assert s3_store.read("empty") == b""
    assert dict(s3_store.list()) == {"shards/a b.bin": len(CONTENT), "empty": 0}
    s3_store.delete("empty")
    s3_store.delete("empty")
    assert dict(s3_store.list()) == {"shards/a b.bin": len(CONTENT)}


def test_a_prefix_does_not_list_a_longer_one(s3: StoreServer, new_prefix: str) -> None:
    ObjectStore(s3.address(new_prefix + "-more")).write("a", b"a")
    assert list(ObjectStore(s3.address(new_prefix)).list()) == []


def test_azure_reads_and_writes(
    azure_server: StoreServer, monkeypatch: pytest.MonkeyPatch, new_prefix: str
) -> None:
    store = ObjectStore(azure_server.use(monkeypatch).address(new_prefix), retries=IMPATIENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    store.write("a.bin", CONTENT, sha256=sha256)
    assert_reads(store, "a.bin")
    found = store.find("a.bin")
    assert found == ObjectFacts(bytes=len(CONTENT), sha256=sha256, mark=found.mark)
    assert dict(store.list()) == {"a.bin": len(CONTENT)}
    store.delete("a.bin")
    store.delete("a.bin")
    with pytest.raises(StorageError, match="no such object"):
        store.read("a.bin")


def test_azure_credentials_come_from_a_connection_string_too(
    azure_server: StoreServer, monkeypatch: pytest.MonkeyPatch, new_prefix: str
) -> None:
    given = azure_server.use(monkeypatch).environment
    names = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT")
    account, key, endpoint = (given[name] for name in names)
    for name in names:
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        ObjectStore(azure_server.address(new_prefix)).read("a.bin")
    parts = f"AccountName={account};AccountKey={key};BlobEndpoint={endpoint};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", parts)
    store = ObjectStore(azure_server.address(new_prefix), retries=IMPATIENT)
    store.write("a.bin", CONTENT)
    assert store.read("a.bin") == CONTENT


def test_google_storage_reads(
    gcs_server: StoreServer, monkeypatch: pytest.MonkeyPatch, new_prefix: str
) -> None:
    gcs.upload(gcs_server, f"{new_prefix}/a.bin", CONTENT)
    store = ObjectStore(gcs_server.use(monkeypatch).address(new_prefix), retries=IMPATIENT)
    assert_reads(store, "a.bin")
    assert dict(store.list()) == {"a.bin": len(CONTENT)}


def test_http_reads(files: StoreServer, new_prefix: str) -> None:
    assert_reads(ObjectStore(files.address(new_prefix + "/"), retries=IMPATIENT), "a.bin")


def test_http_is_read_only_and_says_so(files: StoreServer, new_prefix: str) -> None:
    store = ObjectStore(files.address(new_prefix), retries=IMPATIENT)
    with pytest.raises(StorageError, match=r"cannot write http://.*501.*to write takes s3://"):
        store.write("b.bin", b"b")


def test_objects_larger_than_a_part(s3_store: ObjectStore, tmp_path: Path) -> None:
    content = random.Random(5).randbytes(2 * PART_BYTES + 12_345)
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "large").write_bytes(content)
    s3_store.write("large", tmp_path / "large", sha256=sha256)
    found = s3_store.find("large")
    assert found == ObjectFacts(bytes=len(content), sha256=sha256, mark=found.mark)
    assert s3_store.read("large") == content
    assert s3_store.read_range("large", 7, len(content) - 7) == content[7:-7]


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
def test_content_that_is_not_what_it_should_be_is_never_committed(
    s3_store: ObjectStore, tmp_path: Path, size: int
) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    with pytest.raises(StorageError, match="Nothing was committed"):
        s3_store.write("wrong", tmp_path / "file", sha256=hashlib.sha256(b"right").hexdigest())
    assert "wrong" not in dict(s3_store.list())


OUTSIDE = ["../outside.bin", "a/../../outside.bin", "/outside.bin", "http://other.example/x"]
NO_NAMES = ["", ".", "a//b", "a\\b", "a\nb"]


@pytest.mark.parametrize("name", [*OUTSIDE, *NO_NAMES])
def test_names_that_leave_the_prefix_are_refused(
    fault_proxy: StartProxy, files: StoreServer, new_prefix: str, name: str
) -> None:
    proxy = fault_proxy(files)
    store = ObjectStore(proxy.store.address(new_prefix), retries=IMPATIENT)
    for use in (store.size, store.read, store.delete):
        with pytest.raises(StorageError, match="refused"):
            use(name)
    with pytest.raises(StorageError, match="refused"):
        store.read_range(name, 0, 5)
    with pytest.raises(StorageError, match="refused"):
        store.write(name, b"x")
    assert proxy.requests == []


def test_encoded_dots_stay_inside_the_prefix(
    fault_proxy: StartProxy, files: StoreServer, new_prefix: str
) -> None:
    proxy = fault_proxy(files)
    store = ObjectStore(proxy.store.address(new_prefix), retries=IMPATIENT)
    with pytest.raises(StorageError, match="no such object"):
        store.read("%2e%2e/outside.bin")
    assert [request.path for request in proxy.requests] == [f"/{new_prefix}/%2e%2e/outside.bin"]


@pytest.mark.parametrize(
    "url",
    ["s3://id:secret-word@bucket/x", "https://host/x?token=secret-word", "http://h/x#secret-word"],
)
def test_an_address_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(StorageError, match="credentials come from the environment") as caught:
        ObjectStore(url)
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["bucket/x", "ftp://host/x", "s3://", "s3://b/a/../c", "gs://b/a//c", r"s3://b/a\c"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match=r"no address of|write the address out"):
        ObjectStore(url)


@pytest.mark.parametrize("url", ["s3://[bucket/x", "http://id:secret-word@ho\u2100st/x"])
def test_a_host_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(StorageError, match="bucket or host cannot be one") as caught:
        ObjectStore(url)
    assert "secret-word" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["s3://bucket/C#", "s3://bucket/why?", "s3://bucket/a#/b"])
def test_a_sign_that_would_end_the_prefix_is_refused_and_can_be_written_otherwise(url: str) -> None:
    with pytest.raises(StorageError, match=r"write %3F for \? and %23 for #"):
        ObjectStore(url)


def test_an_address_leads_to_the_objects_of_its_name(s3: StoreServer, new_prefix: str) -> None:
    names = ["a b", "Ω/日本", "50%", "x+y&z", "[a]*~|", "C%23"]
    for name in names:
        ObjectStore(s3.address(f"{new_prefix}/{name}")).write("mine", name.encode())
    assert sorted(name for name, _ in ObjectStore(s3.address(new_prefix)).list()) == sorted(
        f"{name}/mine".replace("%23", "#") for name in names
    )
    loud = s3.address(new_prefix).replace("s3://", "S3://")
    assert ObjectStore(f"{loud}/a b/").read("mine") == b"a b"


def test_a_missing_object_is_one_error_at_once(s3_store: ObjectStore) -> None:
    with pytest.raises(StorageError, match=r"shards/none\.bin, bytes 0 to 10: .*no such object"):
        s3_store.read_range("shards/none.bin", 0, 10)
    assert s3_store.retried == 0


def test_a_missing_bucket_is_one_error_at_once(s3: StoreServer) -> None:
    store = ObjectStore("s3://no-such-bucket/x", retries=IMPATIENT)
    for use in (lambda: store.read("a"), lambda: store.write("a", b"a"), lambda: [*store.list()]):
        with pytest.raises(StorageError, match=r"s3://no-such-bucket/x.*no such bucket"):
            use()
    assert store.retried == 0


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_one_error_at_once_that_repeats_none_of_them(
    s3_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "a-wrong-value")
    store = ObjectStore(s3_store.url, retries=IMPATIENT)
    with pytest.raises(StorageError, match=r"403 Forbidden .*credentials are wrong") as caught:
        store.read("shards/a b.bin")
    assert store.retried == 0
    everything = "".join(traceback.format_exception(caught.value))
    for secret in ("a-wrong-value", seaweedfs.ACCESS_KEY, seaweedfs.SECRET_KEY):
        assert secret not in everything


def test_an_endpoint_without_a_scheme_is_an_error_that_names_its_variable(
    s3_store: ObjectStore, s3_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint.removeprefix("http://"))
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL must begin with https://"):
        ObjectStore(s3_store.url, retries=IMPATIENT).read("shards/a b.bin")


def test_no_credentials_at_all_is_one_error_that_says_where_to_put_them(
    s3: StoreServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
        ObjectStore("s3://bucket/x", retries=IMPATIENT).read("a")


def test_credentials_and_endpoint_come_from_a_profile_too(
    s3_store: ObjectStore, s3_server: StoreServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("boto3", reason="profiles are read by boto3")
    for name in s3_server.environment:
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text(
        f"[profile tests]\nregion = us-east-1\nendpoint_url = {s3_server.endpoint}\n"
        f"aws_access_key_id = {seaweedfs.ACCESS_KEY}\n"
        f"aws_secret_access_key = {seaweedfs.SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "tests")
    assert ObjectStore(s3_store.url).read("shards/a b.bin") == CONTENT


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    store = ObjectStore(f"http://127.0.0.1:{port}/x", retries=IMPATIENT)
    with pytest.raises(StorageError, match=rf"{port}/x/a: .*no connections.* after 3 attempts"):
        store.read("a")


def test_a_stalled_server_is_given_up_on_and_meanwhile_named(
    fault_proxy: StartProxy,
    files: StoreServer,
    new_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pipeline.stores.retries.SILENT_SECONDS", 0.2)
    proxy = fault_proxy(files)
    proxy.chances[Fault.STALL] = 1.0
    store = ObjectStore(
        proxy.store.address(new_prefix), retries=Retries(attempts=3, request_seconds=0.3)
    )
    with pytest.raises(StorageError, match=r"a\.bin, bytes 0 to 10: nothing came for 0\.3 s"):
        store.read_range("a.bin", 0, 10)
    assert len(proxy.requests) == 3
    (said,) = (record.getMessage() for record in caplog.records)
    assert "a.bin, bytes 0 to 10: nothing came for 0.3 s. Trying again, for 120 seconds" in said


def test_an_object_shorter_than_expected_says_so_at_once(s3_store: ObjectStore) -> None:
    expected = "expected 200 bytes, found 100: the object has only 100,000 bytes"
    with pytest.raises(StorageError, match=expected):
        s3_store.read_range("shards/a b.bin", 99_900, 100_100)
    with pytest.raises(StorageError, match="ends before this range"):
        s3_store.read_range("shards/a b.bin", 200_000, 200_100)
    assert s3_store.retried == 0


@pytest.mark.parametrize("fault", list(Fault))
def test_one_fault_is_survived(
    fault_proxy: StartProxy, s3_store: ObjectStore, s3_server: StoreServer, fault: Fault
) -> None:
    proxy = fault_proxy(s3_server)
    proxy.once(fault, "a b.bin", byte=50_000)
    store = ObjectStore(s3_store.url, retries=IMPATIENT)
    assert store.read_range("shards/a b.bin", 0, 50_000) == CONTENT[:50_000]
    assert proxy.injected.total() == 0
    found = store.read_range(
        "shards/a b.bin", 40_000, 60_000, check=same_as(CONTENT[40_000:60_000])
    )
    assert found == CONTENT[40_000:60_000]
    assert proxy.injected == {fault: 1}
    assert store.retried == 1


def test_many_faults_from_many_threads_are_survived(
    fault_proxy: StartProxy, s3_store: ObjectStore, s3_server: StoreServer
) -> None:
    proxy = fault_proxy(s3_server)
    proxy.stall_seconds = 2
    proxy.chances = dict.fromkeys(Fault, 0.03)
    store = ObjectStore(s3_store.url, retries=PATIENT)

    def read(start: int) -> bytes:
        end = start + 1000
        return store.read_range("shards/a b.bin", start, end, check=same_as(CONTENT[start:end]))

    with ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(read, range(0, 100_000, 1000))) == CONTENT
    assert store.retried == proxy.injected.total() > 10


def test_content_that_stays_wrong_ends_in_an_error_that_says_what_was_expected(
    fault_proxy: StartProxy, s3_store: ObjectStore, s3_server: StoreServer
) -> None:
    proxy = fault_proxy(s3_server)
    proxy.chances[Fault.FLIP] = 1.0
    store = ObjectStore(s3_store.url, retries=IMPATIENT)
    what = re.escape(f"{s3_store.url}/shards/a b.bin, bytes 10 to 20: expected ")
    with pytest.raises(StorageError, match=what + ".*, found .* after 3 attempts"):
        store.read_range("shards/a b.bin", 10, 20, check=same_as(CONTENT[10:20]))


def test_throttled_reads_are_slow_but_right(
    fault_proxy: StartProxy, files: StoreServer, new_prefix: str
) -> None:
    proxy = fault_proxy(files)
    proxy.bytes_per_second = 100_000
    # Slower in all than the limit for silence: bytes keep coming, so nothing is cut off.
    retries = Retries(attempts=1, request_seconds=0.5)
    store = ObjectStore(proxy.store.address(new_prefix), retries=retries)
    assert store.read("a.bin") == CONTENT


def test_reading_does_not_touch_the_global_random_numbers(
    fault_proxy: StartProxy, files: StoreServer, new_prefix: str
) -> None:
    proxy = fault_proxy(files)
    proxy.once(Fault.SLOW_DOWN)
    random.seed(11)
    before = random.getstate()
    ObjectStore(proxy.store.address(new_prefix)).read("a.bin")
    assert proxy.injected.total() == 1
    assert random.getstate() == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_after_first_use_gets_an_error_and_does_not_hang(
    files: StoreServer, new_prefix: str
) -> None:
    store = ObjectStore(files.address(new_prefix))
    assert store.read("a.bin") == CONTENT
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:  # no assertion here may reach pytest's own machinery
        try:
            ObjectStore(files.address(new_prefix)).read("a.bin")
            message = "it read"
        except StorageError as error:
            message = str(error)
        finally:
            os.write(send, message.encode())
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    assert 'multiprocessing_context="forkserver" or "spawn"' in message


def test_a_used_store_works_in_a_spawned_process(files: StoreServer, new_prefix: str) -> None:
    store = ObjectStore(files.address(new_prefix), retries=IMPATIENT)
    assert store.read("a.bin") == CONTENT
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(store.read, ("a.bin",)) == CONTENT


def test_pickles_carry_no_credentials(s3_store: ObjectStore) -> None:
    pickled = pickle.dumps(s3_store)
    assert seaweedfs.SECRET_KEY.encode() not in pickled
    assert pickle.loads(pickled).read("shards/a b.bin") == CONTENT


def same_as(expected: bytes) -> Callable[[bytes], str | None]:
    def check(found: bytes) -> str | None:
        return None if found == expected else f"expected {expected[:4]!r}…, found {found[:4]!r}…"

    return check
