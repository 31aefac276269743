"""The options of `braidstream import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CorpusError
from pipeline.storage.blocks import BLOCK_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedTarget:
    """A target set of token blocks in MDS shards of its own."""

    name: str
    train: str
    """Folder or prefix of MDS shards with the corpus's column; small enough for memory."""
    test: str | None = None

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise CorpusError(
                f"a target is called {self.name!r}; its name becomes a file name and may hold letters, "
                "digits, '-' and '_' only. Write --target NAME=TRAIN or --target NAME=TRAIN,TEST."
            )

    @staticmethod
    def parse(text: str) -> ImportedTarget:
        """Read `NAME=TRAIN` or `NAME=TRAIN,TEST`."""
        name, equals, places = text.partition("=")
        parts = places.split(",")
        if not equals or not parts[0] or len(parts) > 2 or not parts[-1]:
            raise CorpusError(
                f"--target {text!r} has the wrong form; write NAME=TRAIN or NAME=TRAIN,TEST, each a folder "
                "or prefix of MDS shards."
            )
        return ImportedTarget(name=name, train=parts[0], test=parts[1] if len(parts) == 2 else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """What to make a corpus of, and what is known about it."""

    prefix: str
    """Local folder, or s3://, gs:// or az:// prefix, whose folders (or tar sets) are the domains."""
    block_bytes: int = BLOCK_BYTES
    """Unit in which the corpus is fetched from an object store; of tokens, rounded down to whole samples."""
    tokenizer: Path | None = None
    """The tokenizer.json that made the tokens; copied into the corpus."""
    vocab_size: int | None = None
    """Number of token ids, where there is no tokenizer.json to say it."""
    separator_id: int | None = None
    """Token that follows every document."""
    pad_id: int | None = None
    """Token that fills blocks, which losses mask."""
    targets: tuple[ImportedTarget, ...] = ()
    """Target sets, for token corpora."""
    allow_pickle: bool = False
    """Import columns of the MDS encoding pkl. Nothing is unpickled by the import; readers must allow it,
    too."""
    work: Path
    """Folder for what is known of the shards so far; removed at the end."""
    connections: int = 8
    """Shards that are read at once."""

    def __post_init__(self) -> None:
        if self.block_bytes < 1 or self.connections < 1:
            raise CorpusError(
                f"--block-bytes {self.block_bytes} and --connections {self.connections} must be at least 1."
            )
        ids = (self.separator_id, self.pad_id)
        vocabulary = (self.tokenizer, self.vocab_size)
        if any(value is not None for value in (*ids, *vocabulary)) and (
            None in ids or vocabulary == (None, None)
        ):
            raise CorpusError(
                "what is known of the tokens is incomplete: give --separator-id and --pad-id, and either "
                "--tokenizer or --vocab-size; or none of them."
            )
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise CorpusError(f"--target names {names}; every name may be given once.")
