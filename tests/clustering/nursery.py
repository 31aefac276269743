"""Builds in processes that start at once, for tests that kill many of them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from clustering.add_config import AddConfig
from clustering.config import BuildConfig
from tests.clustering.observer import ObservedEngine, Orders, observe

WHAT_BUILDS_IMPORT = [
    "jinja2",
    "py3langid",
    "pyarrow.parquet",
    "scipy.optimize",
    "sentence_transformers",
    "sklearn.cluster",
    "streaming",
    "tokenizers",
    "clustering.add",
    "clustering.build",
]


class Nursery:
    """A process that has imported what a build needs, has used none of it, and forks one build at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.clustering.nursery"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, config: BuildConfig | AddConfig, orders: Orders) -> int:
        """Build or add in small units, by the orders; returns the exit code, negative after a signal."""
        assert self._process.stdin is not None
        pickle.dump((config, orders), self._process.stdin)
        self._process.stdin.flush()
        while (answer := self._answer()) == "reached":
            pass  # from a worker of the build before
        group = int(answer)
        while (answer := self._answer()) == "reached":
            assert orders.kill is not None
            time.sleep(orders.kill.later)
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        return int(answer)

    def close(self) -> None:
        """End the nursery."""
        self._process.communicate()
        assert self._process.returncode == 0

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()


def serve() -> None:
    """Build what arrives on standard input, each in a fork."""
    for module in WHAT_BUILDS_IMPORT:
        import_module(module)
    while True:
        try:
            config, orders = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)  # taking down all that was imported would take seconds
        process = os.fork()
        if process == 0:
            _build(config, orders)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _build(config: BuildConfig | AddConfig, orders: Orders) -> None:
    from clustering import config as limits
    from clustering.add import add
    from clustering.build import build
    from clustering.documents import reading
    from clustering.engines.engine_choice import chosen_engine
    from clustering.work.progress import Progress

    os.setsid()  # a group of its own, with its workers
    print(os.getpid(), flush=True)
    # A few hundred short documents are several units of every stage.
    reading.UNIT_BYTES = 6_000
    limits.MIN_SORT_BYTES = 4_096
    progress = Progress(quiet=True)
    observe(orders)
    try:
        engine = ObservedEngine(engine=chosen_engine(config), orders=orders)
        if isinstance(config, AddConfig):
            add(config, progress, engine)
        else:
            build(replace(config, sort_memory=4_096), progress, engine)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    serve()
