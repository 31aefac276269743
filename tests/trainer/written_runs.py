"""Run folders written by hand, in the form that `braidstream train` writes them.

The numbers are made up (smooth curves, a mixture that drifts): they test the reading and the drawing,
not the training. `test_compare.py` does the same with real runs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from trainer.compare.grid import Cell, Grid

STEPS, EVERY = 1200, 100
FINAL = {"natural": 4.25, "uniform": 4.07, "importance": 4.57, "dga": 3.10, "dga-ema": 3.29}
TARGETS = ("medical_qa", "recipes")


def write_runs(out: Path, grid: Grid, *, steps: int = STEPS, **changes: Any) -> list[Path]:
    """One finished run per cell of `grid`."""
    return [write_run(out, cell, k=max(grid.ks), steps=steps, **changes) for cell in grid.cells()]


def write_run(
    out: Path,
    cell: Cell,
    *,
    k: int = 8,
    steps: int = STEPS,
    done_steps: int | None = None,
    targets: tuple[str, ...] = TARGETS,
    **settings: Any,
) -> Path:
    """One run, with `settings` in its configuration; with `done_steps` before its last step unfinished."""
    folder = out / cell.name
    folder.mkdir(parents=True)
    k = cell.k or k
    measures = cell.mixer.startswith("dga")
    evaluated = targets if cell.target is None else (cell.target,)
    config = {
        "target": cell.target,
        "evaluate": list(evaluated),
        "mixer": cell.mixer,
        "k": k,
        "preset": "14m",
        "steps": steps,
        "batch_size": 64,
        "seed": cell.seed,
        "learning_rate": 0.001,
        "step_size": 5.0 if measures else None,
        "estimator": "difference",
        "shrinkage": "none" if measures else None,
        "measured_tokens": 256 if measures else None,
        "epsilon": 5e-5 if measures else None,
        **settings,
        "corpus_fingerprint": "ab" * 32,
    }
    records = _records(cell, k, steps, done_steps or steps, evaluated)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if done_steps is None:
        last = [record for record in records if record["event"] == "eval"][-1]
        result = {
            "format_version": 1,
            "config": config,
            "steps": steps,
            "target_loss_final": last["target_loss"],
            "generic_loss_final": last["generic_loss"],
        }
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def _records(
    cell: Cell, k: int, steps: int, done: int, targets: tuple[str, ...]
) -> list[dict[str, Any]]:
    rng = np.random.default_rng([cell.seed, k, sum(cell.mixer.encode())])
    sizes = rng.uniform(0.5, 2.0, k)
    natural, taste = sizes / sizes.sum(), rng.normal(size=k)
    paced = "paced" in cell.mixer
    moves = cell.mixer.startswith("dga")
    passes, first = np.zeros(k), None
    final = FINAL.get(cell.mixer, 3.0) - 0.05 * math.log2(k) + 0.03 * cell.seed
    records: list[dict[str, Any]] = []
    for step in range(0, done + 1, EVERY // 4):
        time = step / steps
        pull = {"natural": 0.0, "uniform": 0.0}.get(cell.mixer, 4 * time if moves else 3.0)
        weights = natural * np.exp(pull * taste)
        weights /= weights.sum()
        first = weights if first is None else first
        passes = passes + weights / natural * 0.05
        entropy = float(-(weights * np.log(weights)).sum())
        scores = (taste * (1 - time) + 0.2 * rng.normal(size=k)).tolist() if moves else None
        records.append(
            {
                "event": "mixture",
                "step": step,
                "weights": weights.tolist(),
                "effective": (0.5 * weights + 0.5 * natural if paced else weights).tolist(),
                "entropy": entropy,
                "effective_domains": math.exp(entropy),
                "moved": 0.0,
                "moved_total": float(0.5 * np.abs(weights - first).sum()),
                "passes": passes.tolist(),
                "scores": scores,
            }
        )
        if step % EVERY == 0 and step:
            memorized = 2.0 * time**2 if cell.mixer == "importance" else 0.0
            loss = final + 3.5 * math.exp(-7 * time) + memorized - (memorized > 0) * 1.2
            losses = {target: loss + 0.1 * i for i, target in enumerate(targets)}
            records.append(
                {
                    "event": "eval",
                    "step": step,
                    "target_loss": losses,
                    "target_train_loss": {name: v - 0.1 * time for name, v in losses.items()},
                    "generic_loss": 4.1 + 3 * math.exp(-6 * time) + pull * 0.3,
                    "seconds": 0.1,
                }
            )
    return records
