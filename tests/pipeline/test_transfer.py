"""Copying corpora to and from real stores: complete or not at all, resumable, never over somebody's files."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import CorpusError, open_corpus
from pipeline.corpus.manifest import MANIFEST_FILE, FileEntry, Manifest
from pipeline.errors import StorageError
from pipeline.stores.object_store import ObjectStore
from pipeline.stores.retries import Retries
from pipeline.transfer.pull import pull
from pipeline.transfer.push import push
from pipeline.transfer.transfer import UNFINISHED, checked_files
from pipeline.transfer_command import pull as pull_command
from pipeline.transfer_command import push as push_command
from tests.corpora import write_corpus
from tests.servers import fake_gcs as gcs
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.servers.file_server import FileServer
from tests.servers.store_server import StoreServer

StartProxy = Callable[[StoreServer], FaultProxy]


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About twenty files, a dozen of them shards."""
    folder = tmp_path_factory.mktemp("small") / "corpus"
    return write_corpus(folder, [40, 30, 50, 60], levels=(1, 2, 4), shard_bytes=512)


@pytest.fixture(scope="session")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "corpus"
    return write_corpus(folder, [9, 8], levels=(1, 2), shard_bytes=512)


def content_of(folder: Path) -> dict[str, bytes]:
    """The files that the manifest names, and the manifest."""
    names = [entry.file for entry in Manifest.read(folder).files]
    return {name: (folder / name).read_bytes() for name in [*names, MANIFEST_FILE]}


def all_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["s3_server", "azure_server"])
def test_a_corpus_goes_to_a_store_and_back_unchanged(
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
) -> None:
    server: StoreServer = request.getfixturevalue(kind)
    url = server.use(monkeypatch).address(new_prefix)
    sent = push(small_corpus, url)
    content = content_of(small_corpus)
    assert (sent.copied_files, sent.kept_files) == (len(content) - 1, 0)
    assert {name for name, _ in ObjectStore(url).list()} == set(content)
    received = pull(url, tmp_path / "copy")
    assert received.copied_bytes == sent.copied_bytes
    assert content_of(tmp_path / "copy") == content
    assert all_files(tmp_path / "copy") == set(content)
    assert open_corpus(tmp_path / "copy").num_samples == 180


def test_a_corpus_comes_from_http(
    file_server: FileServer, small_corpus: Path, new_prefix: str, tmp_path: Path
) -> None:
    shutil.copytree(small_corpus, file_server.folder / new_prefix)
    pull(file_server.store.address(new_prefix), tmp_path / "copy")
    assert content_of(tmp_path / "copy") == content_of(small_corpus)


def test_a_corpus_comes_from_google_storage(
    gcs_server: StoreServer,
    monkeypatch: pytest.MonkeyPatch,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
) -> None:
    for name, content in content_of(small_corpus).items():
        gcs.upload(gcs_server, f"{new_prefix}/{name}", content)
    pull(gcs_server.use(monkeypatch).address(new_prefix), tmp_path / "copy")
    assert content_of(tmp_path / "copy") == content_of(small_corpus)


def test_what_is_there_is_not_copied_again(
    fault_proxy: StartProxy,
    s3_server: StoreServer,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
) -> None:
    proxy = fault_proxy(s3_server)
    url = proxy.store.address(new_prefix)
    first = push(small_corpus, url)
    pull(url, tmp_path / "copy")
    proxy.clear()
    again = push(small_corpus, url)
    assert (again.copied_files, again.kept_bytes) == (0, first.copied_bytes)
    assert pull(url, tmp_path / "copy").copied_files == 0
    assert not [made for made in proxy.requests if made.method in ("PUT", "POST")]
    read = {made.path for made in proxy.requests if made.method == "GET"}
    assert read == {f"/braidstream/{new_prefix}/{MANIFEST_FILE}"}


def test_the_manifest_comes_last_both_ways(
    fault_proxy: StartProxy,
    s3_server: StoreServer,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
) -> None:
    proxy = fault_proxy(s3_server)
    push(small_corpus, proxy.store.address(new_prefix))
    written = [made.path for made in proxy.requests if made.method == "PUT"]
    assert written[0].endswith(f"/{UNFINISHED}")
    assert written[-1].endswith(f"/{MANIFEST_FILE}")
    proxy.once(Fault.SHORT, "shards/shard.00003.mds")
    ObjectStore(proxy.store.address(new_prefix)).delete("shards/shard.00003.mds")
    with pytest.raises(StorageError, match=r"shard\.00003\.mds"):
        pull(proxy.store.address(new_prefix), tmp_path / "copy")
    assert MANIFEST_FILE not in all_files(tmp_path / "copy")


@pytest.mark.parametrize("direction", ["push", "pull"])
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_copy_is_continued_by_the_same_call(
    fault_proxy: StartProxy,
    s3_server: StoreServer,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
    direction: str,
    stop: signal.Signals,
) -> None:
    proxy = fault_proxy(s3_server)
    url, copy = proxy.store.address(new_prefix), tmp_path / "copy"
    if direction == "pull":
        push(small_corpus, url)
        proxy.clear()
    proxy.stall_seconds = 60
    method = "PUT" if direction == "push" else "GET"
    proxy.methods = {method}
    for held in ("shards/shard.00006.mds", "shards/shard.00007.mds"):
        proxy.once(Fault.STALL, held)  # both connections wait until the signal
    arguments = [str(small_corpus), url] if direction == "push" else [url, str(copy)]
    # Ctrl-C even where the test run itself ignores it, as under nohup.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from pipeline.transfer_command import {direction}; {direction}(sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *arguments, "--connections=2"])
    try:
        deadline = time.monotonic() + 60
        while proxy.injected.total() < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert proxy.injected.total() == 2, "the copy ended before it could be stopped"
        process.send_signal(stop)
        if stop is signal.SIGINT:
            time.sleep(0.2)
            proxy.closing.set()  # the store answers, and the copy notices that it was stopped
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.wait()
    proxy.closing.clear()
    if direction == "push":
        assert ObjectStore(url).find(MANIFEST_FILE) is None
        done = push(small_corpus, url)
        pull(url, copy)
    else:
        assert MANIFEST_FILE not in all_files(copy)
        done = pull(url, copy)
    assert done.kept_files > 0
    assert done.copied_files > 0
    assert content_of(copy) == content_of(small_corpus)
    assert all_files(copy) == set(content_of(small_corpus))
    assert ObjectStore(url).find(UNFINISHED) is None


def test_faults_on_the_way_leave_no_trace_in_the_copies(
    fault_proxy: StartProxy,
    s3_server: StoreServer,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
) -> None:
    proxy = fault_proxy(s3_server)
    proxy.methods = {"GET", "HEAD", "PUT", "DELETE"}
    proxy.stall_seconds = 0.2
    broken_both_ways = (Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.RESET, Fault.STALL)
    proxy.chances = dict.fromkeys(broken_both_ways, 0.05)
    url = proxy.store.address(new_prefix)
    push(small_corpus, url, verify=True)
    proxy.methods = {"GET"}
    proxy.chances = {
        Fault.FLIP: 0.1,
        Fault.TRUNCATE: 0.1,
        Fault.RESET_MIDWAY: 0.1,
        Fault.SHORT: 0.1,
    }
    for name in list(proxy.chances):
        proxy.once(name, "shards/shard.00002.mds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.transfer.pull.ATTEMPTS", 12)
        pull(url, tmp_path / "copy")
    assert proxy.injected.total() > 5
    assert content_of(tmp_path / "copy") == content_of(small_corpus)


def test_another_corpus_is_replaced_only_by_force(
    s3: StoreServer, small_corpus: Path, other_corpus: Path, new_prefix: str, tmp_path: Path
) -> None:
    url, copy = s3.address(new_prefix), tmp_path / "copy"
    push(small_corpus, url)
    pull(url, copy)
    before = dict(ObjectStore(url).list())
    with pytest.raises(CorpusError, match=r"holds another corpus .*--force"):
        push(other_corpus, url)
    assert dict(ObjectStore(url).list()) == before
    push(other_corpus, url, force=True)
    with pytest.raises(CorpusError, match=r"holds another corpus .*--force"):
        pull(url, copy)
    assert content_of(copy) == content_of(small_corpus)
    pull(url, copy, force=True)
    assert content_of(copy) == content_of(other_corpus)


def test_somebodys_files_are_not_overwritten(
    s3: StoreServer, small_corpus: Path, new_prefix: str, tmp_path: Path
) -> None:
    url, home = s3.address(new_prefix), tmp_path / "home"
    push(small_corpus, url)
    home.mkdir()
    (home / "tokenizer.json").write_text("mine", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"has 'tokenizer\.json', which is not the file"):
        pull(url, home)
    assert all_files(home) == {"tokenizer.json"}
    assert (home / "tokenizer.json").read_text(encoding="utf-8") == "mine"


def test_a_damaged_corpus_is_not_pushed(
    s3: StoreServer, small_corpus: Path, new_prefix: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_corpus, copy)
    flip_a_byte(copy / "shards/shard.00001.mds")
    with pytest.raises(
        StorageError, match=r"shard\.\d+\.mds has the sha256 .*: the file changed or is damaged"
    ):
        push(copy, s3.address(new_prefix))
    (copy / "shards/shard.00001.mds").write_bytes(b"short")
    with pytest.raises(CorpusError, match=r"shard\.00001\.mds has 5 bytes; the manifest says"):
        push(copy, s3.address(new_prefix))
    (copy / "shards/shard.00001.mds").unlink()
    with pytest.raises(CorpusError, match=r"shard\.00001\.mds cannot be read: No such file"):
        push(copy, s3.address(new_prefix))
    assert ObjectStore(s3.address(new_prefix)).find(MANIFEST_FILE) is None


def test_damage_in_the_store_is_found_and_mended(
    s3: StoreServer, small_corpus: Path, new_prefix: str, tmp_path: Path
) -> None:
    url = s3.address(new_prefix)
    store = ObjectStore(url, retries=Retries(attempts=2))
    push(small_corpus, url)
    name = "shards/shard.00001.mds"
    right = store.read(name)
    found = store.find(name)
    assert found is not None
    import obstore

    # The wrong content under the right label: only reading it can tell.
    client = store._client(True)
    obstore.put(client, name, bytes(len(right)), attributes={"sha256": str(found.sha256)})
    with pytest.raises(StorageError, match=r"expected sha256 .*, found .* in each of 3 attempts"):
        pull(url, tmp_path / "copy")
    assert push(small_corpus, url).copied_files == 0
    assert push(small_corpus, url, verify=True).copied_files == 1
    pull(url, tmp_path / "copy")
    assert content_of(tmp_path / "copy") == content_of(small_corpus)


def test_objects_that_another_tool_copied_are_recognized_by_their_content(
    s3: StoreServer, small_corpus: Path, new_prefix: str
) -> None:
    store = ObjectStore(s3.address(new_prefix))
    content = content_of(small_corpus)
    for name, each in content.items():
        store.write(name, each)
    assert push(small_corpus, store.url).copied_files == 0
    changed = bytes(len(content["shards/shard.00001.mds"]))
    store.write("shards/shard.00001.mds", changed)
    assert push(small_corpus, store.url).copied_files == 1


def test_a_damaged_folder_is_mended_by_pulling_again(
    s3: StoreServer, small_corpus: Path, new_prefix: str, tmp_path: Path
) -> None:
    push(small_corpus, s3.address(new_prefix))
    pull(s3.address(new_prefix), tmp_path / "copy")
    flip_a_byte(tmp_path / "copy" / "shards/shard.00001.mds")
    assert pull(s3.address(new_prefix), tmp_path / "copy").copied_files == 1
    assert content_of(tmp_path / "copy") == content_of(small_corpus)
    manifest = tmp_path / "copy" / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace("uint16", "uint32", 1))
    pull(s3.address(new_prefix), tmp_path / "copy")
    assert content_of(tmp_path / "copy") == content_of(small_corpus)


@pytest.mark.parametrize(
    "name", ["../planted", "/tmp/planted", "a/../../planted", "s3://b/planted"]
)
def test_a_manifest_that_points_elsewhere_is_refused(
    fault_proxy: StartProxy,
    file_server: FileServer,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
    name: str,
) -> None:
    text = (small_corpus / MANIFEST_FILE).read_text(encoding="utf-8")
    assert '"shards/shard.00001.mds"' in text
    forged = text.replace('"shards/shard.00001.mds"', f'"{name}"')
    (file_server.folder / new_prefix).mkdir()
    (file_server.folder / new_prefix / MANIFEST_FILE).write_text(forged, encoding="utf-8")
    proxy = fault_proxy(file_server.store)
    with pytest.raises(CorpusError):
        pull(proxy.store.address(new_prefix), tmp_path / "in" / "copy")
    assert all_files(tmp_path) == set()
    assert {made.path for made in proxy.requests} == {f"/{new_prefix}/{MANIFEST_FILE}"}


@pytest.mark.parametrize(
    "name", ["s3://b/x", "a//b", "manifest.json", "manifest.json.partial", "x.partial"]
)
def test_names_that_a_copy_could_not_have_are_refused(small_corpus: Path, name: str) -> None:
    """Also by a manifest whose fingerprint is right, as a forger would make it."""
    manifest = Manifest.read(small_corpus)

    def copy_with_it() -> None:
        extra = FileEntry(file=name, bytes=1, sha256="0" * 64)  # refuses some by itself
        checked_files(dataclasses.replace(manifest, extras=(extra,)))

    with pytest.raises(CorpusError):
        copy_with_it()


def test_one_name_with_two_contents_is_refused(small_corpus: Path) -> None:
    manifest = Manifest.read(small_corpus)
    twice = dataclasses.replace(manifest.files[0], sha256="0" * 64)
    extra = FileEntry(file=twice.file, bytes=twice.bytes, sha256=twice.sha256)
    with pytest.raises(CorpusError, match="twice"):
        checked_files(dataclasses.replace(manifest, extras=(extra,)))


def test_a_manifest_that_was_damaged_on_the_way_is_fetched_again(
    fault_proxy: StartProxy,
    file_server: FileServer,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
) -> None:
    shutil.copytree(small_corpus, file_server.folder / new_prefix)
    proxy = fault_proxy(file_server.store)
    proxy.once(Fault.FLIP, MANIFEST_FILE)
    pull(proxy.store.address(new_prefix), tmp_path / "copy")
    assert proxy.injected == {Fault.FLIP: 1}
    assert content_of(tmp_path / "copy") == content_of(small_corpus)


def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    s3: StoreServer, small_corpus: Path, new_prefix: str, tmp_path: Path
) -> None:
    push(small_corpus, s3.address(new_prefix))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match="leads out of"):
        pull(s3.address(new_prefix), tmp_path / "copy", force=True)
    assert all_files(tmp_path / "elsewhere") == set()


def test_pulling_what_is_no_corpus_says_so(
    s3: StoreServer, new_prefix: str, tmp_path: Path
) -> None:
    url = s3.address(new_prefix)
    message = (
        rf"{new_prefix} is not a corpus: it has no manifest\.json.*`braidstream push CORPUS URL`"
    )
    with pytest.raises(StorageError, match=message):
        pull(url, tmp_path / "copy")
    with pytest.raises(CorpusError, match=message):
        open_corpus(url, cache=tmp_path / "cache")
    ObjectStore(url).write(MANIFEST_FILE, b"\xff\xfe")
    with pytest.raises(CorpusError, match="is no JSON"):
        pull(url, tmp_path / "copy")
    assert all_files(tmp_path) == set()


def test_pushing_into_no_bucket_says_what_to_do(s3: StoreServer, small_corpus: Path) -> None:
    with pytest.raises(
        StorageError, match=r"no such bucket\. Check its name .* or make the bucket first"
    ):
        push(small_corpus, "s3://no-such-bucket/corpus")


def test_the_commands_say_what_they_did(
    s3: StoreServer,
    small_corpus: Path,
    new_prefix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = s3.address(new_prefix)
    assert push_command([str(small_corpus), url]) == 0
    assert f"corpus: {url}" in capsys.readouterr().out
    assert pull_command([url, str(tmp_path / "copy")]) == 0
    assert pull_command([url, str(tmp_path / "copy"), "--connections", "2"]) == 0
    assert "were there already" in capsys.readouterr().out


@pytest.mark.parametrize("command", [push_command, pull_command])
def test_help_teaches(
    command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "s3://bucket/prefix",
        "AWS_ACCESS_KEY_ID",
        "--force",
        "the same command continues",
    ):
        assert word in text


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
