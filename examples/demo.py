"""The demo: text, domains, two small models on mixtures that differ, a report.

    python examples/demo.py --out demo-run                    text that came with the installation
    python examples/demo.py --out demo-run --corpus PATH      your own text

It runs the commands that you would run, and prints each one before it does. Run it again and it goes
on where it stopped; what is done is not done twice.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from demo_task import Task

BUILD = "--branching 16 --vocab-size 4096 --tokens-per-sample 128 --heldout-share 0.03"
OWN_DOCUMENTS = 3_000
"""Of your own text, a random sample of this size is built."""
MIXERS = "importance,dga"
TRAINING = (
    "--preset 1m --steps 300 --batch-size 16 --eval-every 50 --eval-sequences 128 --parallel 2"
)


def main() -> int:
    """Run the demo; the exit code is that of the first command that fails, else 0."""
    options = parse_options()
    started = time.monotonic()
    folder = demo_folder(options.out, options.corpus)
    corpus, page, comparison = folder / "corpus", folder / "domains.html", folder / "comparison"

    print("1. Text and a target", flush=True)
    task = prepare_task(folder, options)
    print(f"  target: {task.name} (held out: {task.train}, {task.test})")

    print("\n2. Domains: embed every document, cluster, write the shards in cluster order")
    target = f"{task.name}={task.train},{task.test}"
    sample = [] if options.corpus is None else ["--max-documents", OWN_DOCUMENTS]
    braidstream("build", task.corpus, "--out", corpus, "--target", target, *BUILD.split(), *sample)
    braidstream("inspect", corpus, "--html", page)

    print(
        "\n3. Two models: a mixture fixed by the target's histogram, and one that follows gradients"
    )
    from pipeline import open_corpus

    k = open_corpus(corpus).num_leaves
    grid = ["--k", k, "--mixers", MIXERS, "--targets", task.name, "--seeds", 0]
    braidstream("compare", corpus, *grid, *TRAINING.split(), "--out", comparison)

    print("\n4. What happened", flush=True)
    from demo_summary import print_summary

    print_summary(corpus, comparison, task.name)
    print(f"\n{time.monotonic() - started:.0f} seconds. Open in a browser:")
    print(f"  the domains     {page}\n  the comparison  {comparison / 'report.html'}")
    return 0


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for all that the demo writes"
    )
    parser.add_argument("--corpus", type=Path, help="your own text: a file or folder")
    parser.add_argument(
        "--target", metavar="NAME=TRAIN,TEST", help="the task, with --corpus; else found"
    )
    options = parser.parse_args()
    if options.target and options.corpus is None:
        parser.error("--target belongs to your own text: pass --corpus too")
    return options


def demo_folder(out: Path, corpus: Path | None) -> Path:
    """Where the demo of a text is: for your own, a folder of its name and of a hash of its whole path."""
    if corpus is None:
        return out
    digest = hashlib.sha256(os.fsencode(corpus.resolve())).hexdigest()
    return out / f"own-{corpus.stem}-{digest[:8]}"


def prepare_task(folder: Path, options: argparse.Namespace) -> Task:
    """The task of an earlier run, the one that was asked for, or a new one."""
    if options.target:
        name, _, files = options.target.partition("=")
        train, _, test = files.partition(",")
        return Task(corpus=str(options.corpus), name=name, train=train, test=test)
    task = Task.load(folder)
    if task is None:
        folder.mkdir(parents=True, exist_ok=True)
        if options.corpus is None:
            from installed_text import installed_task

            task = installed_task(folder)
        else:
            from own_text import own_task

            task = own_task(str(options.corpus), folder)
        task.save(folder)
    return task


def braidstream(*arguments: object) -> None:
    """Print a command, run it, and end the demo when it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ braidstream {shlex.join(words)}\n", flush=True)
    finished = subprocess.run([sys.executable, "-m", "pipeline.cli", *words], check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


if __name__ == "__main__":
    sys.exit(main())
