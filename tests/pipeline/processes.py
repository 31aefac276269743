"""Processes that start quickly, for tests that start, and kill, many of them."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext


def quick_processes() -> ForkServerContext:
    """Processes are forked from one that has imported what they need, and has used none of it."""
    context = multiprocessing.get_context("forkserver")
    modules = ["tests.pipeline.noise", "tests.pipeline.trainee", "obstore", "torch.utils.data"]
    context.set_forkserver_preload(modules)
    return context
