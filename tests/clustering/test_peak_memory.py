"""Memory of a stage: what it holds, its workers included, and no pages of files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clustering.work.peak_memory import PeakMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SIZE = 200_000_000
HOLD = f"import time; held = bytearray({SIZE}); print(flush=True); time.sleep(0.5)"


def test_what_was_let_go_counts() -> None:
    with PeakMemory() as peak:
        before = peak.bytes
        held = np.ones(SIZE, dtype=np.uint8)
        # The watcher looks by itself; this only gives it time.
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], check=True)
        del held
    assert before + SIZE <= peak.bytes < before + 2 * SIZE


def test_workers_count() -> None:
    with PeakMemory() as peak:
        before = peak.bytes
        subprocess.run([sys.executable, "-c", HOLD], check=True, capture_output=True)
    assert before + SIZE <= peak.bytes < before + 2 * SIZE


def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.ones(SIZE, dtype=np.uint8))
    with PeakMemory() as peak:
        before = peak.bytes
        mapped = np.load(tmp_path / "large.npy", mmap_mode="r")
        assert mapped.sum() == SIZE
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], check=True)
        del mapped
    assert peak.bytes < before + SIZE / 2


def test_pages_that_a_forked_process_shares_count_once() -> None:
    script = f"""
import os, time
from clustering.work.peak_memory import PeakMemory

held = b"x" * {SIZE}
with PeakMemory() as peak:
    before = peak.bytes
    child = os.fork()
    if not child:
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(child, 0)
print(peak.bytes - before)
"""
    command = (sys.executable, "-c", script)
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(run.stdout) < SIZE / 2
