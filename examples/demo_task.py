"""What the demo builds and steers towards: a corpus, and a small target set that is held out from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

TASK_FILE = "task.json"
TARGET_DOCUMENTS = 70
"""Documents of the target to steer by, and as many again to test on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A corpus and a target, as paths that `braidstream build` takes."""

    corpus: str
    """File or folder of the corpus."""
    name: str
    """Name of the target."""
    train: str
    test: str

    def save(self, folder: Path) -> None:
        """Remember the task; written after the files it names, so that it says they are complete."""
        (folder / TASK_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Task | None:
        """The task that an earlier run of the demo prepared in `folder`, if it came that far."""
        path = folder / TASK_FILE
        return Task(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """Write documents as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    path.write_text("".join(lines), encoding="utf-8")


def hold_out(folder: Path, name: str, documents: Sequence[str]) -> tuple[Path, Path, Sequence[str]]:
    """Write a target set of `documents` (in random order); return its files and what is left.

    At most two thirds are taken, so that something of the kind stays in the corpus: too little to
    train on alone, which is the situation that mixing is for.
    """
    count = min(TARGET_DOCUMENTS, len(documents) // 3)
    train = folder / "target" / f"{name}.train.jsonl"
    test = folder / "target" / f"{name}.test.jsonl"
    write_documents(train, documents[:count])
    write_documents(test, documents[count : 2 * count])
    return train, test, documents[2 * count :]
