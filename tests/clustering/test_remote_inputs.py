"""Input that lies in real object stores on loopback: the same as from a folder, or a clear refusal."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from clustering.add import add
from clustering.add_config import AddConfig
from clustering.build import BuildReport, build
from clustering.config import BuildConfig, TargetSource
from clustering.documents.input_files import READ_BYTES, input_file
from clustering.documents.inputs import find_inputs
from clustering.documents.name_pattern import matches
from clustering.documents.readers import read_documents
from clustering.documents.records import BadInput
from clustering.errors import InputError
from clustering.work.progress import Progress
from pipeline.errors import StorageError
from pipeline.stores.object_store import ObjectStore
from tests.clustering.conftest import documents_of, write_lines, write_model
from tests.clustering.test_readers import tar_of
from tests.pipeline.remote_corpus import upload
from tests.servers import fake_gcs
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.servers.store_server import StoreServer

QUIET = Progress(quiet=True)
LINES = "".join(json.dumps({"text": f"document {n}"}) + "\n" for n in range(3_000)).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of every kind, in folders."""
    files = {
        "a.jsonl": LINES,
        "b/c.jsonl.gz": gzip.compress(LINES, mtime=0),
        "b/d.ndjson.zst": zstandard.compress(LINES),
        "b/e.md": b"# Title",
        "b/f.tar": tar_of({"1.txt": b"one", "2.txt": b"two"}),
        "b/.hidden.jsonl": LINES,
        "b/notes.csv": b"a,b",
    }
    root = tmp_path / "input"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    table = pa.table({"text": [f"row {n}" for n in range(5_000)]})
    pq.write_table(table, root / "z.parquet", row_group_size=1_000)
    return root


def everything(corpus: str) -> list[tuple[str, int, str]]:
    """Name of the file, row and text of every document, as a unit of the build would read them."""
    bad = BadInput()
    return [
        (file.name, document.row, document.text)
        for found in find_inputs(corpus)
        for file in [input_file(found.place, found.name, found.size)]
        for document in read_documents(file, text_column=None, bad=bad)
    ]


def test_a_bucket_reads_like_a_folder(s3: StoreServer, new_prefix: str, folder: Path) -> None:
    address = upload(folder, s3.address(new_prefix))
    expected = everything(str(folder))
    assert len(expected) == 3 * 3_000 + 1 + 2 + 5_000
    assert everything(address) == expected
    assert everything(address + "/") == expected


@pytest.mark.parametrize("pattern", ["a.jsonl", "*.jsonl", "**/*.jsonl*", "b/*.zst", "b", "[az].*"])
def test_names_and_globs_mean_what_they_mean_in_a_folder(
    s3: StoreServer, new_prefix: str, folder: Path, pattern: str
) -> None:
    address = upload(folder, s3.address(new_prefix))
    found = [(file.name, file.size) for file in find_inputs(f"{address}/{pattern}")]
    assert found == [(file.name, file.size) for file in find_inputs(f"{folder}/{pattern}")]


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("a/b.txt", "*.txt", False),
        ("a/b.txt", "*/*.txt", True),
        ("b.txt", "**/*.txt", True),
        ("a/b/c.txt", "**/*.txt", True),
        ("a/b/c.txt", "a/**/c.txt", True),
        ("a/c.txt", "a/**/c.txt", True),
        ("a/b", "a", False),
        ("a", "a/b", False),
    ],
)
def test_a_star_stays_within_a_folder_and_two_do_not(name: str, pattern: str, fits: bool) -> None:
    assert matches(name, pattern) is fits


def test_azure_reads_like_a_folder(
    azure_server: StoreServer,
    new_prefix: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = upload(folder, azure_server.use(monkeypatch).address(new_prefix))
    assert everything(address) == everything(str(folder))


def test_google_reads_like_a_folder(
    gcs_server: StoreServer,
    new_prefix: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = gcs_server.use(monkeypatch)
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{new_prefix}/{path.relative_to(folder).as_posix()}"
            fake_gcs.upload(server, name, path.read_bytes())
    assert everything(server.address(new_prefix)) == everything(str(folder))


def test_faults_on_the_way_change_nothing(
    fault_proxy: Callable[[StoreServer], FaultProxy],
    s3_server: StoreServer,
    new_prefix: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as direct:
        upload(folder, s3_server.use(direct).address(new_prefix))
    proxy = fault_proxy(s3_server)
    for name in ("a.jsonl", "c.jsonl.gz", "d.ndjson.zst", "f.tar", "z.parquet"):
        proxy.once(Fault.RESET_MIDWAY, name)
        proxy.once(Fault.SLOW_DOWN, name)
    assert everything(proxy.store.address(new_prefix)) == everything(str(folder))
    assert proxy.injected == {Fault.RESET_MIDWAY: 5, Fault.SLOW_DOWN: 5}


@pytest.mark.parametrize(
    "name", ["a.jsonl", "b/c.jsonl.gz", "b/d.ndjson.zst", "b/f.tar", "z.parquet"]
)
def test_an_object_that_is_gone_ends_the_build_even_when_bad_input_is_skipped(
    s3: StoreServer, new_prefix: str, folder: Path, name: str
) -> None:
    address = upload(folder, s3.address(new_prefix))
    (file,) = find_inputs(f"{address}/{name}")
    ObjectStore(address).delete(name)
    with pytest.raises(StorageError, match=r"no such object"):
        list(read_documents(file, text_column=None, bad=BadInput(action="skip")))


def test_broken_objects_are_named_or_skipped(s3: StoreServer, new_prefix: str) -> None:
    store = ObjectStore(s3.address(new_prefix))
    broken = {
        "a.jsonl.gz": gzip.compress(LINES)[:-20],
        "b.jsonl.zst": zstandard.compress(LINES)[:-4],
        "c.parquet": b"PAR1 not really",
        "d.tar": tar_of({"1.txt": b"x" * 5_000})[:2_000],
        "e.jsonl": b"",
    }
    for name, content in broken.items():
        store.write(name, content)
    files = find_inputs(store.url)
    assert [file.name for file in files] == sorted(broken)
    for file in files:
        with pytest.raises(InputError, match=f"^{file.name}"):
            list(read_documents(file, text_column=None, bad=BadInput()))
        bad = BadInput(action="skip")
        list(read_documents(file, text_column=None, bad=bad))
        assert bad.skipped == 1


def test_what_cannot_be_listed_says_why(
    s3: StoreServer, new_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"found nothing; the input must be"):
        find_inputs(s3.address(new_prefix))
    for place in ("texts", "texts/*.jsonl", "texts/a.jsonl"):
        with pytest.raises(StorageError, match=r"cannot list s3://no-bucket/texts.*no such bucket"):
            find_inputs(f"s3://no-bucket/{place}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"cannot list .*the credentials are wrong or lack"):
        find_inputs(s3.address(new_prefix))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match="no S3 credentials: set AWS_ACCESS_KEY_ID"):
        find_inputs(s3.address(new_prefix))
    with pytest.raises(StorageError, match="password"):
        find_inputs("s3://me:secret@bucket/texts")


def test_a_large_object_is_never_held(s3: StoreServer, new_prefix: str) -> None:
    lines = b"".join(b'{"text": "%d %s"}\n' % (n, b"x" * 10_000) for n in range(6_000))
    ObjectStore(s3.address(new_prefix)).write("a.jsonl", lines)
    size = len(lines)
    del lines
    (file,) = find_inputs(s3.address(new_prefix))
    tracemalloc.start()
    try:
        documents = sum(1 for _ in read_documents(file, text_column=None, bad=BadInput()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert documents == 6_000
    assert file.size == size > 60_000_000
    assert peak < 2.5 * READ_BYTES


def test_a_build_from_a_bucket_is_the_build_from_a_folder(
    s3: StoreServer,
    new_prefix: str,
    raw_texts: Path,
    built: BuildReport,
    build_config: BuildConfig,
    tmp_path: Path,
) -> None:
    """Target sets and additions, too."""
    (target,) = build_config.target
    texts = upload(raw_texts, s3.address(f"{new_prefix}/texts"))
    task = upload(Path(target.train).parent, s3.address(f"{new_prefix}/task"))
    there = TargetSource(name=target.name, train=f"{task}/train.jsonl", test=f"{task}/test*.jsonl")
    config = replace(build_config, corpus=texts, out=tmp_path / "remote", target=(there,))
    assert build(config, QUIET).manifest.fingerprint == built.manifest.fingerprint

    (tmp_path / "more").mkdir()
    write_lines(tmp_path / "more" / "more.jsonl", documents_of("space", 20, seed=7))
    more = upload(tmp_path / "more", s3.address(f"{new_prefix}/more"))
    shutil.copytree(build_config.out, tmp_path / "local")
    reports = [
        add(AddConfig(corpus=str(tmp_path / "local"), texts=(str(tmp_path / "more"),)), QUIET),
        # Named twice, an object counts once.
        add(AddConfig(corpus=str(config.out), texts=(more, f"{more}/more.jsonl")), QUIET),
    ]
    assert [(report.documents, report.known) for report in reports] == [(20, 0), (20, 0)]
    assert len({report.manifest.fingerprint for report in reports}) == 1


def test_an_object_that_was_written_anew_is_another_one(s3: StoreServer, new_prefix: str) -> None:
    address = s3.address(new_prefix)
    identities = []
    for text in ("one", "two", "two"):
        ObjectStore(address).write("a.jsonl", json.dumps({"text": text}).encode())
        found = [find_inputs(place)[0] for place in (address, f"{address}/a.jsonl")]
        identities.append([file.identity for file in found])
    assert identities[0][0] == identities[0][1]
    assert identities[0] != identities[1] == identities[2]


@pytest.mark.parametrize("inside", ["out", "work"])
def test_what_a_build_writes_among_its_texts_is_not_read(
    s3: StoreServer, new_prefix: str, tmp_path: Path, inside: str
) -> None:
    address = s3.address(new_prefix)
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in" / "a.jsonl", documents_of("law", 30))
    texts = upload(tmp_path / "in", address)
    places = {"out": tmp_path / "out", "work": tmp_path / "work", inside: f"{address}/{inside}"}
    model = str(write_model(tmp_path / "model"))
    config = BuildConfig(corpus=texts, model=model, vocab_size=400, tokens_per_sample=32, **places)
    build(config, QUIET)
    assert build(config, QUIET).nothing_to_do
    with pytest.raises(InputError, match="lies in the corpus folder or its work"):
        build(replace(config, corpus=f"{address}/{inside}"), QUIET)
