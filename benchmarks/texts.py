"""Texts to measure with: a folder of JSON Lines (plain, .gz or .zst; column `text`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa


def texts_by_file(folder: Path) -> Iterator[list[str]]:
    """All texts of each file, files by name."""
    for path in sorted(folder.iterdir()):
        with pa.input_stream(str(path)) as stream:  # the suffix says how it is compressed
            yield [json.loads(line)["text"] for line in stream.read().splitlines()]
