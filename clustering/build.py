"""`braidstream build`: raw text -> embeddings -> cluster tree -> leaf order -> shards -> manifest.

Every stage reads what the stages above it left in the work store and is not repeated when its inputs and
options are the same (stages.py). Data moves in parts, so memory does not grow with the corpus.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from clustering.build_stages import BuildStages
from clustering.config import WORK_FOLDER, BuildConfig
from clustering.corpus.publish import Publication
from clustering.engines.engine import Engine
from clustering.engines.engine_choice import chosen_engine
from clustering.errors import BuildError
from clustering.work.progress import Progress
from clustering.work.stages import StageRecord, Workspace
from clustering.work.work_store import open_work
from pipeline.corpus.manifest import FORMAT, MANIFEST_FILE, Manifest
from pipeline.errors import CorpusError


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What a build did."""

    manifest: Manifest
    stages: tuple[StageRecord, ...]
    seconds: float
    """Of this run."""
    skipped_input: int
    """Lines and files that could not be read."""
    examples_of_skipped: tuple[str, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether an earlier run had finished every stage."""
        return all(record.reused for record in self.stages)


def build(
    config: BuildConfig, progress: Progress | None = None, engine: Engine | None = None
) -> BuildReport:
    """Build a corpus; continue after what an earlier run has finished.

    It is built in `config.folder`, and copied from there when `config.out` is in an object store. `engine` is
    the one that the options name, where none is given.

    Raises:
        InputError: The input cannot be found or read.
        ModelError: The embedding model or the tokenizer is not here.
        BuildError: The folder is in use, or is no place for a corpus; or nothing is left to build from.
        StorageError: The object store refuses.
    """
    started = time.monotonic()
    progress = progress or Progress()
    folder = config.folder
    _check_folder(folder, "--out" if config.address is None else "--work")
    store = open_work(config.work_place)
    engine = engine or chosen_engine(config)
    work = Workspace(folder / WORK_FOLDER, progress, store=store, engine=engine)
    with work.locked():
        publication = None
        if config.address is not None:
            publication = Publication(folder, config.address, work.folder)
            publication.check()
        stages = BuildStages(config, work)
        manifest = _run(stages)
        if publication is not None:
            publication.copy(manifest, progress)
    return BuildReport(
        manifest=manifest,
        stages=tuple(work.records),
        seconds=time.monotonic() - started,
        skipped_input=stages.skipped_input,
        examples_of_skipped=tuple(stages.examples_of_skipped),
    )


def _run(stages: BuildStages) -> Manifest:
    """The flow. Each line is a stage; it leaves its result in the work store."""
    stages.read_targets()
    stages.read()
    stages.dedupe()
    stages.roles()
    stages.distill()
    stages.embed()
    stages.embed_targets()
    stages.fit()
    stages.assign()
    stages.tokenizer()
    stages.tokenize()
    stages.order()
    stages.plan()
    stages.write()
    stages.describe()
    return stages.finish()


def _check_folder(folder: Path, option: str) -> None:
    """Refuse a folder that holds something else: a build replaces `tree`, `targets` and the like in it."""
    if folder.exists() and not folder.is_dir():
        raise BuildError(
            f"{option} {str(folder)!r} is a file; it must be a folder, new or of an earlier build."
        )
    ours = (folder / WORK_FOLDER).exists() or _is_corpus(folder)
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise BuildError(
            f"{option} {str(folder)!r} holds files, but no corpus and no unfinished build; a build would "
            "replace what is in the way. Give a new or empty folder."
        )
    if _was_imported(folder):
        raise BuildError(
            f"{option} {str(folder)!r} holds a corpus that was imported; its shards are yours, and a build "
            "would replace them. Give a new folder."
        )


def _is_corpus(folder: Path) -> bool:
    """Whether the manifest.json in a folder is a corpus's, of whatever version: many programs write some."""
    try:
        return bool(json.loads((folder / MANIFEST_FILE).read_bytes())["format"] == FORMAT)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False


def _was_imported(folder: Path) -> bool:
    try:
        return Manifest.read(folder).build.get("imported") is True
    except CorpusError:  # none yet, or one of an older format, which a build replaces
        return False
