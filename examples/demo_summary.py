"""The end of the demo: how the mixtures moved, and who won on the target. Read from what the runs wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clustering.inspection.domain_facts import Domain
from clustering.inspection.inspection import inspect_corpus
from pipeline import open_corpus
from trainer.results.results import Run, read_runs

TOP_DOMAINS = 5
NOTICEABLE = 0.01
"""A loss (nats) that has risen by less than this since its best moment has not risen."""


def print_summary(corpus: Path, comparison: Path, target: str) -> None:
    """Print a table of the mixtures of the finished runs, and what became of their losses."""
    runs = [run for run in read_runs(comparison) if run.finished]
    domains = inspect_corpus(open_corpus(corpus), k=runs[0].k).layers[-1].domains
    console = Console()
    console.print(mixture_table(runs, domains))
    for sentence in what_happened(runs, target):
        console.print(sentence, highlight=False)


def mixture_table(runs: list[Run], domains: tuple[Domain, ...]) -> Table:
    """The domains that had the largest share of some run's batches, at its start or at its end."""
    table = Table(
        title="How the mixtures moved", title_justify="left", title_style="bold", box=SIMPLE_HEAD
    )
    table.add_column("domain")
    table.add_column("corpus", justify="right", no_wrap=True)
    for run in runs:
        table.add_column(f"{run.mixer}\nstart → end", justify="right", no_wrap=True)
        table.add_column("passes\nover it", justify="right", no_wrap=True, style="dim")
    k = len(domains)
    start = [run.mixtures.effective[0].dense(k) for run in runs]
    end = [run.mixtures.effective[-1].dense(k) for run in runs]
    passes = [run.mixtures.passes[-1].dense(k) for run in runs]
    largest = np.max([*start, *end], axis=0)
    for i in np.argsort(-largest, kind="stable")[:TOP_DOMAINS]:
        row = [
            cell
            for r in range(len(runs))
            for cell in (f"{start[r][i]:.0%} → {end[r][i]:.0%}", f"{passes[r][i]:.1f}")
        ]
        name = Text(f"#{i} {', '.join(domains[i].keywords[:3])}")
        table.add_row(name, f"{domains[i].share:.0%}", *row)
    return table


def what_happened(runs: list[Run], target: str) -> list[str]:
    """Who ends lowest on text of the target that no run trained on, and whose loss rose again."""
    loss = {run.mixer: run.evaluations.target_loss[target] for run in runs}
    sentences = []
    for run in runs:
        losses = loss[run.mixer]
        best = int(np.nanargmin(losses))
        if losses[-1] - losses[best] > NOTICEABLE:
            most = run.mixtures.most_repeated()[-1]
            sentences.append(
                f"{run.mixer} was best at step {run.evaluations.steps[best]} ({losses[best]:.3f} nats) and "
                f"got worse from there: by its end it had read its most repeated domain {most:.0f} times."
            )
    first, *others = sorted(loss, key=lambda mixer: float(loss[mixer][-1]))
    for other in others:
        gap = loss[other][-1] - loss[first][-1]
        sentences.append(
            f"{first} wins on {target} with a final loss of {loss[first][-1]:.3f}, {gap:.3f} below {other}: "
            f"a perplexity of {np.exp(loss[first][-1]):.0f} against {np.exp(loss[other][-1]):.0f}."
        )
    sentences.append("A tiny model, one seed: `--seeds 0,1,2` shows how much of this is chance.")
    return sentences
