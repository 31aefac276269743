"""`braidstream train`: one training run from the command line."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from pipeline import BraidstreamError, open_corpus
from trainer.run.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCommand:
    """Train a model on a mixture of domains that a mixer steers while training runs.

    A run's folder holds config.json, metrics.jsonl, checkpoints/ and, at its end, result.json; `braidstream
    compare` makes a table and a report of several. Which mixer does what: docs/dga.md.

      braidstream train corpus --target recipes --k 64
      braidstream train corpus --target recipes --mixer dga-paced --preset 1m --steps 300 --batch-size 16
      braidstream train corpus --mixer natural                       (without a target, to compare with)
      torchrun --nproc-per-node 8 -m pipeline.cli train corpus --target recipes          (on several GPUs)

    The same command again continues a run that was stopped.
    """

    corpus: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS")]
    """Corpus folder, as `braidstream build` writes it, or its address: s3://, gs://, az://, https://."""
    version: int | None = None
    """An earlier version of the corpus, to continue a run that began before documents were added; default:
    the newest."""
    out: Path | None = None
    """Folder of this run; default: CORPUS/runs/MIXER-TARGET-kK-PRESET-seedSEED (without what is not
    given), for an address runs/NAME/…"""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def main(argv: list[str]) -> int:
    """Run `braidstream train`; 0 when the run is complete, 130 after Ctrl-C."""
    command = tyro.cli(
        TrainCommand,
        prog="braidstream train",
        args=argv,
        registry=names_with_commas(),
        config=(tyro.conf.DisallowNone,),
    )
    from trainer.results.results import RESULT_FILE
    from trainer.run.interrupt import TrainingInterrupted
    from trainer.run.loop import train
    from trainer.run.resolve import idle_settings, learns_nothing

    corpus = open_corpus(command.corpus, version=command.version)
    out = command.out or corpus.runs / run_name(command.config)
    already_finished = (out / RESULT_FILE).exists()
    speaks = os.environ.get("RANK", "0") == "0"  # one of torchrun's processes is enough
    if speaks and (idle := idle_settings(command.config)):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        print(f"note: without effect in a run of {command.config.mixer}: {names}.", flush=True)
    if speaks and (reason := learns_nothing(command.config)):
        print(f"note: {reason}", flush=True)
    try:
        result = train(corpus, command.config, out)
    except TrainingInterrupted as stop:
        if speaks:
            print(f"{stop} To continue:\n  braidstream train {shlex.join(argv)}", flush=True)
        return 128 + stop.signal_number
    if speaks:
        print(summary(result, out, already_finished=already_finished))
    return 0


def run_name(config: TrainConfig) -> str:
    """Name of a run folder that tells runs apart by what is usually varied."""
    k = "" if config.k is None else f"k{config.k}"
    parts = (config.mixer, config.target, k, config.preset, f"seed{config.seed}")
    return "-".join(part for part in parts if part)


def summary(result: dict[str, Any], out: Path, *, already_finished: bool) -> str:
    """What is printed at the end."""
    losses = [f"generic {_loss(result['generic_loss_final'])}"]
    for name, loss in result["target_loss_final"].items():
        best = result["target_loss_best"][name]
        at = f" (best {_loss(best['loss'])} at step {best['step']:,})" if best else ""
        losses.append(f"{name} {_loss(loss)}{at}")
    begin = "already finished, nothing to do" if already_finished else "finished"
    return (
        f"{begin}: {result['steps']:,} steps, {result['tokens']:,} tokens in "
        f"{result['seconds']:.0f} s ({result['tokens_per_second']:,.0f} tokens/s)\n"
        f"loss: {' · '.join(losses)}\nrun: {out}"
    )


def _loss(loss: float | None) -> str:
    return "not measured" if loss is None else f"{loss:.3f}"


def names_with_commas() -> tyro.constructors.ConstructorRegistry:
    """Lists of names are written with commas: `--evaluate a,b`."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _names(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[tuple[str, ...]] | None:
        if info.type != tuple[str, ...]:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="A,B",
            instance_from_str=lambda args: tuple(filter(None, args[0].split(","))),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(value)],
        )

    return registry


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BraidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
