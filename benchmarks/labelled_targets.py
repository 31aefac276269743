"""Target sets out of labelled text: what a build takes, from a folder that has a file per kind of text.

    python -m benchmarks.labelled_targets DOCUMENTS --out OTHER --targets code_rust,poetry_en

OTHER/documents has every kind but those of --without. Of each kind in --targets, 300 random documents are in
OTHER/targets/KIND.train.jsonl instead, and 300 others in KIND.test.jsonl. Prints the options of the build.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.texts import texts_by_file
from pipeline.stream.counter_rng import random_uniform

_CHOICE_DRAW = 0x6C6162


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What becomes of which kind; a kind is called like its file, without suffixes."""

    documents: tyro.conf.Positional[Path]
    """Folder with a JSON Lines file (plain, .gz or .zst; column `text`) per kind of text."""
    out: Path
    """Folder to write to."""
    targets: str
    """Kinds that give a target set, with commas."""
    without: str = ""
    """Kinds to leave out, with commas."""
    examples: int = 300
    """Documents of a target's train split, and of its test split."""


def main(options: Options) -> None:
    targets = options.targets.split(",")
    without = options.without.split(",") if options.without else []
    paths = sorted(options.documents.iterdir())
    kinds = [path.name.partition(".")[0] for path in paths]
    if missing := sorted({*targets, *without}.difference(kinds)):
        raise SystemExit(f"{options.documents} has no file for {', '.join(missing)}.")
    for kind, texts in zip(kinds, texts_by_file(options.documents), strict=True):
        if kind in without:
            continue
        kept = np.arange(len(texts))
        if kind in targets:
            order = np.argsort(random_uniform(0, _CHOICE_DRAW, np.arange(len(texts))))
            train, test, rest = np.split(order, [options.examples, 2 * options.examples])
            files = [
                options.out / "targets" / f"{kind}.{split}.jsonl" for split in ("train", "test")
            ]
            for file, rows in zip(files, (train, test), strict=True):
                write(file, texts, rows)
            print(f"--target {kind}={files[0]},{files[1]}")
            kept = np.sort(rest)
        write(options.out / "documents" / f"{kind}.jsonl", texts, kept)


def write(path: Path, texts: list[str], rows: NDArray[np.int64]) -> None:
    """The texts of `rows` as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": texts[row]}, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
