"""A store on loopback as a test sees it, and the process that serves it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import stop_fork_server

CLOUD_VARIABLES = ("AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreServer:
    """Where a store listens and how a client finds it."""

    endpoint: str
    """`http://127.0.0.1:port`."""
    root: str
    """The address that prefixes hang below: `s3://bucket`, or the endpoint itself."""
    environment: dict[str, str] = field(default_factory=dict)

    def address(self, prefix: str) -> str:
        return f"{self.root}/{prefix}"

    def behind(self, endpoint: str) -> StoreServer:
        """The same store, reached through a proxy."""
        return StoreServer(
            endpoint=endpoint,
            root=self.root.replace(self.endpoint, endpoint),
            environment={
                name: value.replace(self.endpoint, endpoint)
                for name, value in self.environment.items()
            },
        )

    def use(self, monkeypatch: pytest.MonkeyPatch) -> StoreServer:
        """Make this the only store that the environment knows, for one test."""
        import os

        for name in [name for name in os.environ if name.startswith(CLOUD_VARIABLES)]:
            monkeypatch.delenv(name)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        # Worker processes have the environment that the fork server was started in, so start another.
        stop_fork_server()
        return self


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def running(
    make_command: Callable[[list[int]], list[str]],
    *,
    ports: int,
    ready_path: str,
    log: Path,
    seconds: float = 60,
) -> Iterator[list[int]]:
    """A server process while the context lasts; yields its ports, the first of which speaks HTTP.

    Another process may take a port between our look and the server's; then it is started once more.
    """
    for last_try in (False, False, True):
        found = free_ports(ports)
        process = _start(make_command(found), log)
        try:
            if _ready(process, f"http://127.0.0.1:{found[0]}{ready_path}", seconds):
                yield found
                return
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if last_try:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-2000:]}")


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    if setpriv := shutil.which("setpriv"):  # a killed test run takes its servers along
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent
        )


def _ready(process: subprocess.Popen[bytes], url: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False
