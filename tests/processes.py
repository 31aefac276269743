"""Processes that start quickly, for tests that start, and kill, many of them; what one took."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process has taken, where there is /proc."""
    # What getrusage says would be this process's parent's, if that is larger.
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def quick_processes(*modules: str) -> ForkServerContext:
    """Processes are forked from one that has imported `modules`, and has used none of it."""
    wanted = list(modules)
    if forkserver._forkserver._preload_modules != wanted:  # type: ignore[attr-defined]
        stop_fork_server()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(wanted)
    return context


def stop_fork_server() -> None:
    """The next process starts another, with the environment and the imports of then."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def stream_processes() -> ForkServerContext:
    """For readers of streams."""
    return quick_processes(
        "tests.pipeline.noise", "tests.pipeline.trainee", "obstore", "torch.utils.data"
    )
