"""How far a run that is killed and continued, or replayed, is from one that nobody disturbed.

    python -m benchmarks.resume CORPUS --target recipes --kills 5 --steps 400
    python -m benchmarks.resume CORPUS --target recipes --kills 3 --steps 40 --preset 1m     # any CPU

The same training four times: undisturbed; undisturbed again, which shows the device's own noise; ended with
SIGKILL after random steps and continued each time with the same command; and with the mixture that the
first run wrote, replayed by the mixer `schedule`. Compared with the first are the training loss of every
step, the mixture at every step that has one, and the losses at the end. Options that this does not know are
passed on to every run: see `braidstream train --help`; what only the mixer uses stands in its name.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import machine_line, table
from trainer.results.results import CONFIG_FILE, METRICS_FILE, read_metrics

TRAIN = (sys.executable, "-m", "trainer.train_command")
HEADER = ("run", "steps", "largest difference of a training loss", "mean", "largest of a mixture")
HEADER += ("of the target's loss at the end", "of the generic loss")


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus")
    parser.add_argument("--target", required=True)
    parser.add_argument("--mixer", default="dga-paced")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--kills", type=int, default=5)
    options, others = parser.parse_known_args()
    every = max(1, options.steps // (4 * options.kills))
    run = [*TRAIN, options.corpus, "--target", options.target, "--steps", str(options.steps)]
    run += ["--log-every", "1", "--eval-every", str(options.steps), *others]
    own = ["--mixer", options.mixer, "--checkpoint-every", str(every)]
    with tempfile.TemporaryDirectory() as name:
        folders = {way: Path(name, way) for way in ("first", "again", "killed", "replayed")}
        finish([*run, *own, "--out", str(folders["first"])])
        finish([*run, *own, "--out", str(folders["again"])])
        kills = kill([*run, *own, "--out", str(folders["killed"])], folders["killed"], options)
        finish([*run, *replay(folders["first"]), "--out", str(folders["replayed"])])
        first = records(folders["first"])
        rows = [
            compared(first, records(folders[way]), way) for way in ("again", "killed", "replayed")
        ]
    print(f"killed after steps {', '.join(map(str, kills))}; a checkpoint every {every} steps\n")
    print(f"{machine_line()}\n\n{table(HEADER, rows)}")


def replay(first: Path) -> list[str]:
    """Options that replay a run: the weights that its mixer chose, under the budget that it had."""
    config = json.loads((first / CONFIG_FILE).read_text("utf-8"))
    options = ["--mixer", "schedule", "--weights-file", str(first / METRICS_FILE)]
    if config["max_passes"] is not None:
        options += ["--max-passes", str(config["max_passes"]), "--surplus", config["surplus"]]
    return options


def finish(command: Sequence[str]) -> None:
    """Train to the end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def kill(command: Sequence[str], folder: Path, options: argparse.Namespace) -> list[int]:
    """Train with SIGKILL after random steps, then to the end; returns the last step written each time."""
    chance = random.Random(0)
    part = options.steps // (options.kills + 1)
    killed = []
    for number in range(options.kills):
        step = number * part + chance.randint(1, part)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and last_step(folder) < step:
                time.sleep(0.02)
            process.kill()
        killed.append(last_step(folder))
    finish(command)
    return killed


def last_step(folder: Path) -> int:
    """The last step whose training loss is written."""
    return max((step for event, step in records(folder) if event == "train"), default=0)


def records(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What a run wrote, by event and step."""
    lines, _ = read_metrics(folder / METRICS_FILE)
    return {(line["event"], line["step"]): line for line in lines}


def compared(
    first: dict[tuple[str, int], dict[str, Any]],
    other: dict[tuple[str, int], dict[str, Any]],
    way: str,
) -> list[str]:
    """A row: nats, and total variation for mixtures."""
    losses = [
        abs(line["train_loss"] - other[key]["train_loss"])
        for key, line in first.items()
        if key[0] == "train"
    ]
    mixtures = [
        sum(abs(a - b) for a, b in zip(line["effective"], other[key]["effective"], strict=True)) / 2
        for key, line in first.items()
        if key[0] == "mixture" and key in other
    ]
    end = max(key for key in first if key[0] == "eval")
    target = [
        abs(loss - other[end]["target_loss"][name])
        for name, loss in first[end]["target_loss"].items()
    ]
    generic = abs(first[end]["generic_loss"] - other[end]["generic_loss"])
    worst = (max(losses), sum(losses) / len(losses), max(mixtures), max(target), generic)
    return [way, f"{len(losses):,}", *(f"{value:.2g}" for value in worst)]


if __name__ == "__main__":
    main()
