"""The folder of a run: what it was told, what it measured, where it can continue.

RUN/config.json  metrics.jsonl  checkpoints/step-NNNNNN/  result.json (written last)  .lock
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pipeline import BraidstreamError, Corpus
from pipeline.corpus.versions import advice
from pipeline.whole_files import unfinished
from trainer.mixers import MixerSettings
from trainer.results.results import CONFIG_FILE, METRICS_FILE, RESULT_FILE
from trainer.run.atomic import write_json
from trainer.run.config import TrainConfig
from trainer.run.folder_lock import FolderLock

RESULT_VERSION = 1
_MAY_DIFFER = frozenset({"device", "compile", "log_every", "checkpoint_every", "health"})
"""Settings that change how a run proceeds and not what it computes."""
_IS_LOG = re.compile(r"\..*|log(\.txt)?|.*\.(log|out|err)")
"""Names in a folder that a caller made for what a run prints, as `braidstream compare` does."""


class RunFolderError(BraidstreamError):
    """A run folder that belongs to another run."""


def make_folder(folder: Path) -> None:
    """Make a folder of a run or a comparison; `RunFolderError` where none can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise RunFolderError(
            f"the folder {folder} cannot be made ({error.strerror}: {error.filename!r}). Choose another "
            "--out."
        ) from None


def check_is_free(folder: Path, may_be_there: Collection[str] = ()) -> None:
    """Raise `RunFolderError` for a folder with files that are neither logs nor hidden nor of these names."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in there if name not in may_be_there and not _IS_LOG.fullmatch(name)]
    if others:
        raise RunFolderError(
            f"{folder} holds {others[0]!r}, and no run: one would be written among what is there. Choose "
            "another --out, a new or empty folder."
        )


class RunFolder:
    """Paths and the two small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / CONFIG_FILE
        self.metrics_file = path / METRICS_FILE
        self.result_file = path / RESULT_FILE
        self.checkpoints = path / "checkpoints"
        self._lock = FolderLock(path)

    def check(self, config: TrainConfig, corpus: Corpus) -> None:
        """Raise `RunFolderError` where it is no folder, another run's (settings, or corpus) or somebody's."""
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not there.is_dir():
            raise RunFolderError(
                f"{there} is a file, and a run needs a folder: {self.path}. Choose another --out."
            )
        found = _config_of_run(self.config_file)
        if found is None:
            if self.metrics_file.exists() or any(self.checkpoints.glob("*")):
                raise RunFolderError(
                    f"{self.path} holds a run without config.json; move the folder away, or choose "
                    "another --out."
                )
            # A run that was killed just before it had written config.json leaves these.
            check_is_free(self.path, {self.checkpoints.name, unfinished(self.config_file).name})
            return
        wanted = _identity(config, corpus)
        differences = [
            f"{name} (there {found.get(name)!r}, now {value!r})"
            for name, value in wanted.items()
            if name not in _MAY_DIFFER
            and found.get(name) != value
            and not (name not in found and _is_default(name, value))
        ]
        if differences:
            raise RunFolderError(
                f"{self.path} holds a run with other settings: {', '.join(differences)}. Give the "
                "settings of that run to continue it, or choose another --out."
                + advice(corpus.manifest, found.get("corpus_fingerprint"))
            )

    def result(self) -> dict[str, Any] | None:
        """What result.json says, or None while the run is unfinished."""
        if not self.result_file.exists():
            return None
        return json.loads(self.result_file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def take(self) -> bool:
        """Create the folder and let no other process train in it until `close`; False if one does."""
        make_folder(self.checkpoints)
        return self._lock.take()

    def close(self) -> None:
        """Let other processes train in it."""
        self._lock.release()

    def begin(self, config: TrainConfig, corpus: Corpus, device: torch.device) -> None:
        """Write config.json."""
        write_json(
            self.config_file,
            {
                **_identity(config, corpus),
                "corpus": corpus.address,
                "braidstream_version": braidstream_version(),
                "torch_version": torch.__version__,
                "device_name": device_name(device),
            },
        )

    def finish(self, config: TrainConfig, outcome: dict[str, Any]) -> dict[str, Any]:
        """Write result.json, which says that the run is over; returns its content."""
        result = {"format_version": RESULT_VERSION, "config": config.to_json(), **outcome}
        write_json(self.result_file, result)
        return result


def _config_of_run(file: Path) -> dict[str, Any] | None:
    """What a run's config.json says; None where there is none, or one of something else, as of a model."""
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "corpus_fingerprint" in found else None


def _is_default(name: str, value: Any) -> bool:
    """Whether a setting that a run of an earlier version does not record means what was done then."""
    return value is not None and value == getattr(MixerSettings(method="natural"), name, None)


def _identity(config: TrainConfig, corpus: Corpus) -> dict[str, Any]:
    return {**config.to_json(), "corpus_fingerprint": corpus.fingerprint}


def braidstream_version() -> str:
    """The installed version; a source tree that was never installed says so."""
    try:
        return version("braidstream")
    except PackageNotFoundError:
        return "not installed"


def device_name(device: torch.device) -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
