"""Builds in processes that start at once, for tests that kill many of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from clustering.config import BuildConfig

WHAT_BUILDS_IMPORT = [
    "jinja2",
    "py3langid",
    "pyarrow.parquet",
    "scipy.optimize",
    "sentence_transformers",
    "sklearn.cluster",
    "streaming",
    "tokenizers",
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

    def start(self, config: BuildConfig) -> int:
        """Begin a build whose units are small; returns its process, which leads a group of its own."""
        assert self._process.stdin is not None
        pickle.dump(config, self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def join(self) -> int:
        """Wait until the build has ended; returns its exit code, negative when a signal killed it."""
        return self._answer()

    def close(self) -> None:
        """End the nursery."""
        self._process.communicate()
        assert self._process.returncode == 0

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def serve() -> None:
    """Build what arrives on standard input, each in a fork."""
    for module in WHAT_BUILDS_IMPORT:
        import_module(module)
    while True:
        try:
            config = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)  # taking down all that was imported would take seconds
        process = os.fork()
        if process == 0:
            _build(config)
        _say(process)
        _say(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _build(config: BuildConfig) -> None:
    from clustering import config as limits
    from clustering.build import build
    from clustering.documents import reading
    from clustering.work.progress import Progress

    os.setsid()
    # A few hundred short documents are several units of every stage.
    reading.UNIT_BYTES = 6_000
    limits.MIN_SORT_BYTES = 4_096
    try:
        build(replace(config, sort_memory=4_096), Progress(quiet=True))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _say(number: int) -> None:
    print(number, flush=True)


if __name__ == "__main__":
    serve()
