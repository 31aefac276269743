"""Real stores on loopback as fixtures. Each starts when a test first asks for it, once per test process.

Register with `pytest_plugins = ["tests.servers.fixtures"]`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.servers.azurite import azurite
from tests.servers.fake_gcs import fake_gcs
from tests.servers.fault_proxy import FaultProxy
from tests.servers.file_server import FileServer
from tests.servers.seaweedfs import seaweedfs
from tests.servers.store_server import StoreServer


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """SeaweedFS with an empty bucket."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """Azurite with an empty container."""
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """fake-gcs-server with an empty bucket; fill it with `tests.servers.fake_gcs.upload`."""
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """An HTTP server with byte ranges; put files into its `folder`, its `store` is what clients see."""
    with FileServer(tmp_path_factory.mktemp("http")) as server:
        yield server


@pytest.fixture
def s3(s3_server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> StoreServer:
    """SeaweedFS, and an environment that leads to it."""
    return s3_server.use(monkeypatch)


@pytest.fixture
def fault_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[StoreServer], FaultProxy]]:
    """Puts a proxy before a store and leads the environment to it: `fault_proxy(s3_server)`."""
    with ExitStack() as stack:

        def start(upstream: StoreServer) -> FaultProxy:
            proxy = stack.enter_context(FaultProxy(upstream))
            proxy.store.use(monkeypatch)
            return proxy

        yield start


@pytest.fixture
def new_prefix() -> str:
    """A prefix that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
