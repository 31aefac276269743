"""The file of a page: whole or not at all, in a folder that is made for it."""

from __future__ import annotations

from pathlib import Path

from clustering.errors import BuildError
from pipeline.whole_files import write_whole


def write_html(page: str, path: Path) -> None:
    """Write a page to `path` in one step, making its folder when there is none.

    Raises `BuildError` when `path` is a folder, or cannot be written; nothing is left there then.
    """
    if path.is_dir():
        raise BuildError(
            f"--html {str(path)!r} is a folder; it takes the name of the page's file. Give one in it, such "
            f"as {path / 'page.html'}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode())
    except OSError as error:
        raise BuildError(
            f"--html {str(path)!r} cannot be written ({error.strerror}). Give a file in a folder that you "
            "may write to, on a disk with space left."
        ) from None
