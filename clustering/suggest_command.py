"""`braidstream suggest`: how many domains to start from, as a table, a page and one number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from clustering.config import PLACE
from clustering.errors import BuildError

if TYPE_CHECKING:
    from pipeline.corpus.manifest import Manifest

SAMPLE = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class SuggestConfig:
    """Which granularity to start from: stability, variance explained, tokens per domain.

    The table ends in one number of domains and its reason; `braidstream train --k` takes it.

      braidstream suggest corpus --train-tokens 20000000      (tokens of the run: --steps × batch × length)
      braidstream suggest --embeddings vectors/               (before a build)
    """

    corpus: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS")] = None
    """A corpus folder with the work of its build (.build), or that work folder."""
    embeddings: Annotated[Path | str | None, PLACE] = None
    """Instead: a folder (or s3:// prefix) of vectors as `braidstream build --embeddings` takes it."""
    corpus_tokens: int | None = None
    """Tokens of the corpus; by default what its manifest says, where there is one."""
    train_tokens: int | None = None
    """Tokens of the training run that is planned; by default as many as the corpus has."""
    sample: int = SAMPLE
    """Documents to look at, about. More tell more domains apart: it takes 32 for each."""
    seed: int = 0
    """Decides the sample and the fits."""
    html: Path | None = None
    """Also write one self-contained page with the curves. It needs no network."""

    def __post_init__(self) -> None:
        if (self.corpus is None) == (self.embeddings is None):
            raise BuildError("name a corpus folder, or pass --embeddings DIR; one of them.")
        for option in ("corpus_tokens", "train_tokens", "sample"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise BuildError(f"--{option.replace('_', '-')} is {value}; it must be at least 1.")
        if not 0 <= self.seed < 2**32:
            raise BuildError(f"--seed is {self.seed}; it must lie between 0 and 2**32 - 1.")

    @property
    def vectors(self) -> Path | str:
        """The folder of vectors, or its address."""
        if self.embeddings is not None:
            return self.embeddings
        assert self.corpus is not None, "checked above"
        if not self.corpus.is_dir():
            raise BuildError(
                f"there is no folder {str(self.corpus)!r}: give one that `braidstream build` worked in, or "
                "pass --embeddings DIR."
            )
        for folder in (self.corpus / ".build" / "embed", self.corpus / "embed"):
            if folder.is_dir():
                return folder
        raise BuildError(
            f"{str(self.corpus)!r} has no embeddings (.build/embed): give a folder that `braidstream build` "
            "worked in, or pass --embeddings DIR."
        )


def main(argv: list[str]) -> int:
    """Run the command; return its exit code."""
    config = tyro.cli(
        SuggestConfig, prog="braidstream suggest", args=argv, config=(tyro.conf.DisallowNone,)
    )
    from clustering.embedding.vector_sample import sample_vectors
    from clustering.trees.suggest import fitted_vectors, suggest, survey
    from clustering.work.progress import Progress

    vectors = sample_vectors(config.vectors, config.sample, seed=config.seed)
    progress = Progress()
    try:
        with progress.task("suggest", unit="vectors", total=fitted_vectors(len(vectors))):
            rows = survey(
                vectors,
                corpus_tokens=config.corpus_tokens or _tokens(_manifest(config.corpus)),
                train_tokens=config.train_tokens,
                seed=config.seed,
                advance=progress.advance,
            )
    except KeyboardInterrupt:
        print("Stopped.")
        return 130
    suggestion = suggest(rows)
    manifest = _manifest(config.corpus)
    _print(suggestion, len(vectors), 0 if manifest is None else manifest.tree.levels[-1])
    if config.html is not None:
        from clustering.trees.suggest_page import write_page

        write_page(suggestion, len(vectors), config.html)
        print(f"page: {config.html}")
    return 0


def _manifest(corpus: Path | None) -> Manifest | None:
    """Of a corpus that is built."""
    from pipeline.corpus.manifest import MANIFEST_FILE, Manifest

    if corpus is None or not (corpus / MANIFEST_FILE).is_file():
        return None
    return Manifest.read(corpus)


def _tokens(manifest: Manifest | None) -> int | None:
    return None if manifest is None else manifest.counts.tokens


def _print(suggestion: Any, num_vectors: int, num_leaves: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=SIMPLE_HEAD, title=f"{num_vectors:,} documents", title_justify="left")
    for column in ("k", "stability", "explained", "tokens per domain", "passes"):
        table.add_column(column, justify="right")
    for row in suggestion.rows:
        table.add_row(
            f"{row.k:,}",
            f"{row.stability:.2f}",
            f"{row.explained:.1%}",
            "?" if row.tokens is None else f"{row.tokens:,}",
            "?" if row.passes is None else f"{row.passes:.1f}",
            style="bold green" if row.k == suggestion.k else "",
        )
    console.print(table)
    console.print(f"[bold]k = {suggestion.k:,}[/bold]: {suggestion.reason}", highlight=False)
    branching = ",".join(map(str, suggestion.branching))
    todo = (
        f"The corpus has this view, as any other up to {num_leaves:,}: --k {suggestion.k}."
        if suggestion.k <= num_leaves
        else f"Build with --branching {branching}; any other number of domains is a view of it."
    )
    console.print(todo, highlight=False)
    if suggestion.rows[0].tokens is None:
        console.print(
            "Tokens are not known, so repetition is not looked at: pass --corpus-tokens and --train-tokens."
        )
