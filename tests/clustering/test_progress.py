from __future__ import annotations

import re

import pytest

from clustering.work.progress import Progress


def test_elsewhere_than_on_a_terminal_a_task_ends_with_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress()
    with progress.task("embed", unit="documents", total=3_000):
        progress.skip(1_000)
        progress.advance(2_000)
    with progress.task("targets", unit="documents", total=0):
        pass
    with progress.task("static-model", unit="documents", total=None):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"embed: 3,000 of 3,000 documents, [\d,]+/s, done", lines[0])
    assert lines[1:] == ["targets: done", "static-model: done"]
