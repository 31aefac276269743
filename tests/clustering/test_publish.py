"""Builds whose --out is in an object store, against a real one."""

from __future__ import annotations

import gc
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clustering.build import BuildReport, build
from clustering.build_command import main, parse
from clustering.config import BuildConfig
from clustering.corpus import publish
from clustering.errors import BuildError
from clustering.work.progress import Progress
from pipeline import open_corpus
from pipeline.errors import StorageError
from pipeline.stores.object_store import ObjectStore
from tests.servers.store_server import StoreServer

QUIET = Progress(quiet=True)


@pytest.fixture
def remote_build(
    built: BuildReport, build_config: BuildConfig, s3: StoreServer, new_prefix: str, tmp_path: Path
) -> BuildConfig:
    """A build into a bucket whose work folder has finished the same build before, so that it is quick."""
    shutil.copytree(build_config.out, tmp_path / "work")
    return replace(build_config, out=s3.address(new_prefix), work=tmp_path / "work")


def test_a_build_into_a_bucket_opens_from_there(
    built: BuildReport, build_config: BuildConfig, remote_build: BuildConfig, tmp_path: Path
) -> None:
    report = build(remote_build, QUIET)
    assert report.manifest.fingerprint == built.manifest.fingerprint
    remote = open_corpus(remote_build.out, cache=tmp_path / "cache")
    local = open_corpus(build_config.out)
    every = np.arange(local.num_samples)
    np.testing.assert_array_equal(remote.read(every), local.read(every))
    names = {name for name, _ in ObjectStore(str(remote_build.out)).list()}
    assert names == {"manifest.json", *(entry.file for entry in built.manifest.files)}


def test_a_build_with_other_options_replaces_its_own_corpus(
    remote_build: BuildConfig, tmp_path: Path
) -> None:
    build(remote_build, QUIET)
    report = build(replace(remote_build, format="webdataset"), QUIET)
    remote = open_corpus(remote_build.out, cache=tmp_path / "cache")
    assert remote.fingerprint == report.manifest.fingerprint
    assert remote.manifest.shard_format == "webdataset"


def test_another_corpus_is_not_replaced_and_no_work_is_wasted(
    remote_build: BuildConfig, tmp_path: Path
) -> None:
    build(remote_build, QUIET)
    elsewhere = replace(remote_build, work=tmp_path / "elsewhere")
    with pytest.raises(BuildError, match=r"holds a corpus .* that was not built in"):
        build(elsewhere, QUIET)
    assert not list((tmp_path / "elsewhere").rglob("*.npy"))


def test_a_copy_that_was_stopped_goes_on_with_the_same_command(
    remote_build: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        push(*arguments, **options)
        store = ObjectStore(str(remote_build.out))
        store.write("manifest.json.partial", store.read("manifest.json"))
        store.delete("manifest.json")
        store.delete("tree/leaf_offsets.npy")
        raise KeyboardInterrupt

    push = publish.push
    with monkeypatch.context() as patch:
        patch.setattr(publish, "push", stopped)
        with pytest.raises(KeyboardInterrupt):
            build(remote_build, QUIET)
    report = build(remote_build, QUIET)
    assert report.nothing_to_do
    remote = open_corpus(remote_build.out, cache=tmp_path / "cache")
    assert remote.fingerprint == report.manifest.fingerprint


def test_a_bucket_that_cannot_be_had_is_an_error_before_the_work(
    remote_build: BuildConfig, tmp_path: Path
) -> None:
    bucket = str(remote_build.out).rpartition("/")[0]
    wrong = replace(remote_build, out=f"{bucket}-missing/corpus", work=tmp_path / "fresh")
    with pytest.raises(StorageError, match="missing"):
        build(wrong, QUIET)
    assert not list((tmp_path / "fresh").rglob("*.npy"))


def test_the_command_line_takes_a_folder_or_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIDSTREAM_CACHE", str(tmp_path))
    local = parse(["texts", "--out", "corpus"])
    assert (local.out, local.folder, local.address) == (Path("corpus"), Path("corpus"), None)
    remote = parse(["texts", "--out", "s3://bucket/corpus/"])
    assert remote.address == "s3://bucket/corpus"
    assert remote.folder.parent == tmp_path / "build"
    assert remote.folder != parse(["texts", "--out", "s3://bucket/other"]).folder
    given = parse(["texts", "--out", "s3://bucket/corpus", "--work", "here"])
    assert given.folder == Path("here")
    with pytest.raises(StorageError, match="user name, password"):
        main(["texts", "--out", "s3://key:secret@bucket/corpus"])


def test_stock_streaming_reads_a_build_from_the_bucket(
    remote_build: BuildConfig, s3: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `StreamingDataset` that knows nothing of us, with remote= as its documentation says."""
    from streaming import StreamingDataset

    monkeypatch.setenv("S3_ENDPOINT_URL", s3.endpoint)
    report = build(replace(remote_build, shard_bytes=4_096, block_bytes=1_024), QUIET)
    assert len(report.manifest.shards) > 2
    corpus = open_corpus(remote_build.out, cache=tmp_path / "cache")
    stock = StreamingDataset(
        remote=f"{remote_build.out}/shards",
        local=str(tmp_path / "stock"),
        shuffle=False,
        batch_size=1,
    )
    found = np.stack([sample["tokens"] for sample in stock])
    np.testing.assert_array_equal(found, corpus.read(np.arange(corpus.num_samples)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_stock_webdataset_reads_a_build_from_the_bucket(
    remote_build: BuildConfig, s3: StoreServer, tmp_path: Path
) -> None:
    """A `WebDataset` over `pipe:` addresses, as its documentation says for S3."""
    import webdataset

    fetch = tmp_path / "fetch.py"  # what `aws s3 cp ADDRESS -` does, which not every machine has
    fetch.write_text(
        "import sys, boto3\n"
        "bucket, key = sys.argv[1].removeprefix('s3://').split('/', 1)\n"
        "boto3.client('s3').download_fileobj(bucket, key, sys.stdout.buffer)\n",
        encoding="utf-8",
    )
    options = {"format": "webdataset", "shard_bytes": 65_536, "block_bytes": 2_048}
    report = build(replace(remote_build, **options), QUIET)  # type: ignore[arg-type]
    assert len(report.manifest.shards) > 2
    corpus = open_corpus(remote_build.out, cache=tmp_path / "cache")
    urls = [
        f"pipe:{sys.executable} {fetch} {remote_build.out}/{entry.file}"
        for entry in report.manifest.shards
    ]
    stock = webdataset.WebDataset(urls, shardshuffle=False).decode()
    found = np.stack([sample["npy"] for sample in stock])
    gc.collect()  # or the pipes that webdataset leaves open are another test's warning
    np.testing.assert_array_equal(found, corpus.read(np.arange(corpus.num_samples)))
