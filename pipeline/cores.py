"""The processor cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many: fewer than the machine has where a scheduler or a container binds the process to some."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it listens to PYTHON_CPU_COUNT, too
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
