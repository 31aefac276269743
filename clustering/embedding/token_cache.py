"""Token vectors of the static model, kept on this machine: no text decides them, and they take half a minute.

    CACHE/static-model/KEY.vectors    sha256 of what follows, then a .npy file

CACHE is the user's cache folder, KEY a hash of all that the vectors are made from. An entry that is not whole
counts as none. Entries appear by rename, so processes that compute the same one at once do not disturb each
other. The folder may be removed at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.work.stages import hash_of, published
from pipeline.corpus.manifest import file_entry
from pipeline.storage.cache_settings import default_cache_folder

DIGEST_BYTES = 32


def kept_vectors(
    made_from: Mapping[str, Any], compute: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The vectors of `made_from` (plain JSON, all that decides them): kept ones, else computed and kept.

    Warns when the cache folder takes nothing.
    """
    name = f"{hash_of(made_from)}.vectors"
    found = _read(name)
    if found is None:
        found = compute()
        _keep(name, found)
    return found


def files_digest(folder: Path) -> str:
    """sha256 (hex) over names and contents of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = [file_entry(folder, path.relative_to(folder).as_posix()) for path in files]
    return hash_of([asdict(entry) for entry in entries])


def _read(name: str) -> NDArray[np.float32] | None:
    try:
        entry = (_folder() / name).read_bytes()
    except (OSError, RuntimeError):
        return None
    content = entry[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != entry[:DIGEST_BYTES]:
        return None
    vectors: NDArray[np.float32] = np.load(io.BytesIO(content))
    return vectors


def _keep(name: str, vectors: NDArray[np.float32]) -> None:
    file = io.BytesIO()
    np.save(file, vectors)
    content = file.getvalue()
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time writes what is renamed
            with published(folder / name) as partial:
                partial.write_bytes(hashlib.sha256(content).digest() + content)
    except (OSError, RuntimeError) as error:  # the latter: there is no home folder
        warnings.warn(
            f"the token vectors of the static model cannot be kept ({error}): every build that needs the "
            "model computes them again. Set BRAIDSTREAM_CACHE to a folder that takes 30 MB.",
            stacklevel=2,
        )


def _folder() -> Path:
    return default_cache_folder() / "static-model"
