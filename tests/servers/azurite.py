"""Azurite: Azure blobs on loopback, installed by npm into the user's cache folder."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.servers.store_server import StoreServer, running

VERSION = "3.35.0"
ACCOUNT, CONTAINER = "devstoreaccount1", "braidstream"
# The one key that every Azurite has; its documentation prints it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def azurite(folder: Path) -> Iterator[StoreServer]:
    program = _installed()

    def command(ports: list[int]) -> list[str]:
        return [
            str(program),
            f"--blobPort={ports[0]}",
            "--blobHost=127.0.0.1",
            f"--location={folder}",
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
        ]

    with running(command, ports=1, ready_path="/", log=folder / "azurite.log") as ports:
        endpoint = f"http://127.0.0.1:{ports[0]}"
        _create_container(f"{endpoint}/{ACCOUNT}")
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{ACCOUNT}",
        }
        yield StoreServer(endpoint=endpoint, root=f"az://{CONTAINER}", environment=environment)


def _installed() -> Path:
    """The program, installed by whichever test process comes first."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite needs npm, which is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "braidstream-tests"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"azurite-{VERSION}"
    program = target / "node_modules" / ".bin" / "azurite-blob"
    with (cache / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(target)]
            done = subprocess.run(
                [*install, f"azurite@{VERSION}"], capture_output=True, text=True, timeout=240
            )
            if done.returncode:
                pytest.skip(f"npm could not install Azurite: {done.stderr[-500:]}")
    return program


def _create_container(account_url: str) -> None:
    """Create the container; the store's client has no call for it, so the request is signed here."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    canonical_headers = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    to_sign = "PUT" + "\n" * 12 + canonical_headers + resource
    digest = hmac.digest(base64.b64decode(KEY), to_sign.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    url = f"{account_url}/{CONTAINER}?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)):
        pass
