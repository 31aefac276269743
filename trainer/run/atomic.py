"""Files and folders that appear whole or not at all, also after a power cut."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.whole_files import write_whole


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write one JSON object, and return when its name is on the disk, too."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
    sync(path.parent)


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
