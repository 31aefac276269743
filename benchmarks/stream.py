"""The stream beside its limit and its peers, from local disk, at several numbers of domains.

    python -m benchmarks.stream                          all of it: about an hour on two cores
    python -m benchmarks.stream --quick                  does everything run? a few minutes
    python -m benchmarks.stream --k 64 --loaders gather braidstream

Every loader serves batches of 32 samples of 1 KiB, drawn from one Dirichlet mixture over k domains, first in
the training process, then from two workers; each in processes of its own, in turns, because machines drift.
benchmarks/peers has one module per loader, benchmarks/requirements.txt what they need.

A loader that is not ready to give a batch within --patience seconds at some k is not tried at a larger one.
Every measurement is kept in --results; a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data import write_data
from benchmarks.peers import PEERS
from benchmarks.results import Results
from benchmarks.stream_tables import print_tables

DOMAINS = (8, 64, 1_024, 4_096, 16_384, 65_536, 262_144)
SAMPLES = 262_144
"""At least; 256 MiB, so that no processor cache holds them."""
MEASURED_EACH_ROUND = ("gather", "braidstream", "torchdata")
"""What the targets compare; the others take part in the first round."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing in the results, then print the tables."""
    options = parse_options(arguments)
    settings = {name: getattr(options, name) for name in ("quick", "seconds", "patience")}
    results = Results(options.results, settings)
    for k in options.k:
        with tempfile.TemporaryDirectory(prefix="braidstream-bench-", dir=options.folder) as folder:
            measure_at(k, Path(folder), options, results)
    print_tables(results, options.k, options.loaders, options.workers)


def measure_at(k: int, folder: Path, options: argparse.Namespace, results: Results) -> None:
    """All loaders at one k."""
    written: set[str] = set()
    for turn in range(options.rounds):
        for workers in options.workers:
            for loader in options.loaders:
                if turn and loader not in MEASURED_EACH_ROUND:
                    continue
                if results.count(k, loader, workers) > turn or results.gave_up(k, loader, workers):
                    continue
                if not written:
                    progress(f"k = {k:,}: writing the data")
                    write_data(folder, k, 16 * k if options.quick else SAMPLES)
                    written.add("braidstream")
                where = [loader, str(folder)]
                if loader not in written:
                    written.add(loader)
                    _, problem = run(["write", *where], options.patience)
                    if problem:
                        results.give_up(k, loader, options.workers, f"files: {problem}")
                        continue
                pace = ["--workers", str(workers), "--seconds", str(options.seconds)]
                found, problem = run(["rate", *where, *pace], options.patience + options.seconds)
                if problem:
                    results.give_up(k, loader, [workers], f"first batch: {problem}")
                    continue
                if loader == "braidstream":
                    steering, problem = run(["steering", *where, *pace], options.patience)
                    assert not problem, f"set_mixture at k = {k}: {problem}"
                    found |= steering
                results.add(k, loader, workers, found)
                progress(f"  {loader}, {workers} workers: {found['samples_per_second']:,.0f}/s")


def run(arguments: list[str], seconds: float) -> tuple[dict[str, float], str]:
    """What one measuring process found, or what was wrong; it is stopped, children and all, in time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.measure", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return {}, f"none in {seconds:.0f} s"
    finally:
        stop_family(process)
    if process.returncode:
        progress(errors)
        return {}, (errors.strip().splitlines() or ["failed"])[-1][:60]
    return json.loads(output.splitlines()[-1]), ""


def stop_family(process: subprocess.Popen[str]) -> None:
    """The measuring process leads a group of its own, which its workers belong to."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def progress(line: str) -> None:
    """To the terminal, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; --quick only changes defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="small data, short turns, two k: figures mean nothing"
    )
    quick = parser.parse_known_args(arguments)[0].quick
    parser.add_argument("--k", type=int, nargs="+", default=(64, 1_024) if quick else DOMAINS)
    parser.add_argument("--workers", type=int, nargs="+", default=(0, 2))
    parser.add_argument("--loaders", nargs="+", choices=PEERS, default=tuple(PEERS))
    parser.add_argument("--rounds", type=int, default=1 if quick else 3)
    parser.add_argument("--seconds", type=float, default=0.3 if quick else 3.0)
    parser.add_argument("--patience", type=float, default=60.0 if quick else 120.0)
    parser.add_argument(
        "--folder", type=Path, help="where the data are written; default: temporary"
    )
    parser.add_argument(
        "--results", type=Path, help="a file of JSON lines; default: forget what was measured"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
