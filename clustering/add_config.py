"""The options of `braidstream add`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from clustering.engines.engine_choice import EngineName, chosen_engine
from clustering.errors import BuildError


@dataclass(frozen=True, kw_only=True, slots=True)
class AddConfig:
    """What to add to which corpus."""

    corpus: Annotated[str, Positional, arg(metavar="CORPUS")]
    """The corpus folder, as `braidstream build` writes it."""
    texts: Annotated[tuple[str, ...], Positional, arg(metavar="TEXTS...")]
    """Files, folders or globs, as `braidstream build` takes them."""
    text_column: str | None = None
    """Name of the column that holds the text; otherwise detected (text, content, ...)."""
    on_bad_input: Literal["fail", "skip"] = "fail"
    """What to do with a folder, file or line that cannot be read: stop with an error, or skip and count."""
    model: str | None = None
    """Where the corpus's embedding model is, if it was a folder: only its name is recorded."""
    device: str = "auto"
    """Where the embedding model runs: auto, cpu, cuda, cuda:1, mps."""
    workers: int = 1
    """Processes that do the units of a stage side by side; the result is the same whatever their number."""
    engine: EngineName = "local"
    """Who does the units of a stage: `local`, processes on this machine; or `ray`, all cores and GPUs of a
    Ray cluster, whose nodes must share the folders that are named here. The result is the same."""
    ray_address: str = "auto"
    """The Ray cluster: `auto`, the one that this machine is a node of; or host:port of its head."""
    part_documents: int = 4_096
    """Documents per part of the work; an addition that is killed loses at most one part."""

    def __post_init__(self) -> None:
        if not self.texts:
            raise BuildError(
                "nothing to add was named: give files, folders or globs after the corpus."
            )
        chosen_engine(self)
