"""What a corpus in a bucket can be refused for: one clear error each, and nothing read outside the prefix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import CorpusError, open_corpus
from pipeline.stores.object_store import ObjectStore
from tests.pipeline.remote_corpus import upload, write_small_corpus
from tests.servers.fault_proxy import FaultProxy
from tests.servers.store_server import StoreServer


def shard(file: str) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["shards"][0].update(file=file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m.update(format_version=4),
            "format version 4; this Braidstream reads the versions 2 and 3",
        ),
        (shard("../secret/shard.00000.mds"), "only to files inside its own folder"),
        (shard("/etc/passwd"), "only to files inside its own folder"),
        (shard("http://other.example/shard.00000.mds"), "only to files inside its own folder"),
        (lambda m: m["blocks"].update(sha256="../../etc/passwd"), "which is none"),
    ],
    ids=["newer version", "parent", "absolute", "another host", "checksum that is a path"],
)
def test_a_hostile_manifest(
    s3_server: StoreServer,
    fault_proxy: Callable[[StoreServer], FaultProxy],
    new_prefix: str,
    tmp_path: Path,
    edit: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    folder = write_small_corpus(tmp_path / "corpus")
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    proxy = fault_proxy(s3_server)
    upload(folder, proxy.store.address(new_prefix))
    before = len(proxy.requests)
    with pytest.raises(CorpusError, match=message):
        open_corpus(proxy.store.address(new_prefix), cache=tmp_path / "cache")
    asked = [request.path.partition("?")[0] for request in proxy.requests[before:]]
    assert all(path.endswith(f"{new_prefix}/manifest.json") for path in asked)


def test_a_shard_that_is_shorter_than_the_manifest_says(
    s3: StoreServer, new_prefix: str, tmp_path: Path
) -> None:
    folder = write_small_corpus(tmp_path / "corpus")
    address = s3.address(new_prefix)
    upload(folder, address)
    name = "shards/shard.00001.mds"
    ObjectStore(address).write(name, (folder / name).read_bytes()[:5000])
    corpus = open_corpus(address, cache=tmp_path / "cache")
    last_of_shard = sum(shard.samples for shard in corpus.manifest.shards[:2]) - 1
    with pytest.raises(CorpusError, match=rf"{name}, bytes .*ends"):
        corpus.read(np.array([last_of_shard]))
