"""The end of the demo: how the mixtures moved, and who won on the target. Read from what the runs wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clustering.inspection import Domain, inspect_corpus
from pipeline import open_corpus
from trainer.results import Run, read_runs

TOP_DOMAINS = 4


def print_summary(corpus_folder: Path, comparison: Path, target: str) -> None:
    """Print two tables and a sentence about the runs in `comparison`."""
    corpus = open_corpus(corpus_folder)
    runs = [run for run in read_runs(comparison) if run.finished]
    console = Console()
    for run in runs:
        domains = inspect_corpus(corpus, k=run.k).layers[-1].domains
        console.print(mixture_table(run, domains))
    console.print(loss_table(runs, target))
    console.print(verdict(runs, target), highlight=False)


def mixture_table(run: Run, domains: tuple[Domain, ...]) -> Table:
    """The largest domains of a run's mixture at its start and at its end."""
    first = run.mixtures.effective[0].dense(run.k)
    last = run.mixtures.effective[-1].dense(run.k)
    passes = run.mixtures.passes[-1].dense(run.k)
    table = Table(
        title=f"How the mixture of {run.mixer} moved (total variation {run.mixtures.moved_total[-1]:.2f})",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
    )
    for name in ("domain", "in corpus", "first", "last", "passes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("keywords", no_wrap=True, overflow="ellipsis")
    for i in np.argsort(-np.maximum(first, last), kind="stable")[:TOP_DOMAINS]:
        table.add_row(
            f"#{i}",
            f"{domains[i].share:.1%}",
            f"{first[i]:.1%}",
            f"{last[i]:.1%}",
            f"{passes[i]:.1f}",
            Text(", ".join(domains[i].keywords[:5])),
        )
    return table


def loss_table(runs: list[Run], target: str) -> Table:
    """Loss on the target's test text and on everything, at the end and at the best moment."""
    table = Table(
        title=f"Loss on {target}, on text that no run has seen (nats per token)",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
    )
    for name in ("mixer", "final", "best", "at step", "general text, final"):
        table.add_column(name, justify="left" if name == "mixer" else "right")
    for run in runs:
        losses, steps = run.evaluations.target_loss[target], run.evaluations.steps
        best = int(np.nanargmin(losses))
        table.add_row(
            run.mixer,
            f"{losses[-1]:.3f}",
            f"{losses[best]:.3f}",
            str(steps[best]),
            f"{run.evaluations.generic_loss[-1]:.3f}",
        )
    return table


def verdict(runs: list[Run], target: str) -> str:
    """One sentence: whose final loss is lowest, and by how much."""
    ranked = sorted(runs, key=lambda run: float(run.evaluations.target_loss[target][-1]))
    if len(ranked) < 2:
        return "Only one run has finished, so there is nothing to compare."
    losses = [float(run.evaluations.target_loss[target][-1]) for run in ranked]
    gap = losses[1] - losses[0]
    return (
        f"{ranked[0].mixer} ends {gap:.3f} nats below {ranked[1].mixer} on {target}: a perplexity of "
        f"{np.exp(losses[0]):.1f} against {np.exp(losses[1]):.1f}. One seed and a tiny model; "
        "add --seeds 0,1,2 to the comparison to see how much is chance."
    )
