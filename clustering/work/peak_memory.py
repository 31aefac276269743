"""The most memory that this process, and its largest worker, have held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


def begin_peak() -> None:
    """Measure from now on, where the system can (Linux); elsewhere the measure goes back to the start."""
    try:
        _CLEAR.write_text(_FORGET_PEAK, "ascii")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Resident set of this process at its largest, plus that of the largest worker that has ended."""
    return _own() + _bytes(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def _own() -> int:
    if _STATUS.is_file():
        for line in _STATUS.read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _bytes(maxrss: int) -> int:
    return maxrss if sys.platform == "darwin" else maxrss * 1024
