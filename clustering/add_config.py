"""The options of `braidstream add`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from clustering.errors import BuildError


@dataclass(frozen=True, kw_only=True, slots=True)
class AddConfig:
    """What to add to which corpus."""

    corpus: Positional[str]
    """The corpus folder, as `braidstream build` writes it."""
    texts: Positional[tuple[str, ...]]
    """Files, folders or globs, as `braidstream build` takes them."""
    text_column: str | None = None
    """Name of the column that holds the text; otherwise detected (text, content, ...)."""
    on_bad_input: Literal["fail", "skip"] = "fail"
    """What to do with a line or file that cannot be read: stop with an error, or skip and count it."""
    model: str | None = None
    """Where the corpus's embedding model is, if it was a folder: only its name is recorded."""
    device: str = "auto"
    """Where the embedding model runs: auto, cpu, cuda, cuda:1, mps."""
    workers: int = 1
    """Processes that do the units of a stage side by side; the result is the same whatever their number."""
    part_documents: int = 4_096
    """Documents per part of the work; an addition that is killed loses at most one part."""

    def __post_init__(self) -> None:
        if not self.texts:
            raise BuildError(
                "nothing to add was named: give files, folders or globs after the corpus."
            )
