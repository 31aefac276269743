"""Checkpoints: one folder per saved step that is there whole or not at all.

RUN/checkpoints/step-000400/
    model.pt        weights
    optimizer.pt    AdamW's moments
    random.pt       torch's generator
    state.json      steering (mixer and stream), and the run's own counters

Everything is read back with `weights_only=True`: a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any

import torch

from pipeline import StateError
from trainer.run.atomic import sync

STATE_VERSION = 2
_KEPT = 2
_FULL_DISK_BYTES = 2**16
_TENSOR_FILES = ("model.pt", "optimizer.pt", "random.pt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped."""

    step: int
    """Steps that are done."""
    model: dict[str, Any]
    optimizer: dict[str, Any]
    random: dict[str, Any]
    state: dict[str, Any]
    """Plain JSON types."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder`/step-NNNNNN and remove all but the last two; returns its path."""
    final = folder / f"step-{checkpoint.step:06d}"
    temporary = _hidden(final)
    for unfinished in folder.glob(".step-*.tmp"):
        shutil.rmtree(unfinished)
    temporary.mkdir(parents=True)
    for name in _TENSOR_FILES:
        try:
            torch.save(getattr(checkpoint, name.removesuffix(".pt")), temporary / name)
        except RuntimeError as error:  # torch does not say that the disk is full
            if shutil.disk_usage(folder).free < _FULL_DISK_BYTES:
                raise OSError(ENOSPC, os.strerror(ENOSPC), str(temporary / name)) from error
            raise
    state = {"version": STATE_VERSION, "step": checkpoint.step, **checkpoint.state}
    (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
    for path in temporary.iterdir():
        sync(path)
    sync(temporary)
    temporary.rename(final)
    sync(folder)
    for old in _saved(folder)[:-_KEPT]:
        shutil.rmtree(old.rename(_hidden(old)))
    return final


def load_checkpoint(folder: Path, device: torch.device) -> Checkpoint | None:
    """The last checkpoint in `folder`, or None; `StateError` if another version wrote it."""
    saved = _saved(folder)
    if not saved:
        return None
    state = json.loads((saved[-1] / "state.json").read_text(encoding="utf-8"))
    if state["version"] != STATE_VERSION:
        raise StateError(
            f"{saved[-1]} has checkpoint version {state['version']}; this version of Braidstream reads "
            f"version {STATE_VERSION}. Finish the run with the version that began it."
        )
    model, optimizer, random = (
        # The generator's state belongs in main memory wherever the model is.
        torch.load(
            saved[-1] / name,
            weights_only=True,
            map_location="cpu" if name == "random.pt" else device,
        )
        for name in _TENSOR_FILES
    )
    return Checkpoint(
        step=int(state["step"]), model=model, optimizer=optimizer, random=random, state=state
    )


def _hidden(checkpoint: Path) -> Path:
    """Its name while it is not whole; the next one that is saved removes what is left so."""
    return checkpoint.with_name(f".{checkpoint.name}.tmp")


def _saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
