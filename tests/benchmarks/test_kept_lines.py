"""Measurements in a file: a benchmark goes on there with the same settings, and with no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kept_lines import KeptLines


def test_a_stopped_benchmark_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    KeptLines(path, {"size": "tiny", "steps": 3}).add({"ms": 1.5})
    again = KeptLines(path, {"size": "tiny", "steps": 3})
    assert [line["ms"] for line in again.lines] == [1.5]
    again.add({"ms": 2.5})
    assert [line["ms"] for line in KeptLines(path, {"size": "tiny", "steps": 3}).lines] == [
        1.5,
        2.5,
    ]
    with pytest.raises(SystemExit, match="another --results"):
        KeptLines(path, {"size": "full", "steps": 3})
