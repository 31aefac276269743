"""`braidstream build`: the command line and the closing note."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clustering.build import BuildReport, build
from clustering.config import BuildConfig
from clustering.documents.records import SHOWN_EXAMPLES
from clustering.errors import BuildError
from clustering.work.stages import write_json

FEW_DOCUMENTS = 100
"""Fewer than this for each domain of the first level, and the closing note advises fewer domains."""
REPORT_FILE = "build_report.json"
DESCRIPTION = """Turn raw text into a corpus folder whose domains stream as a mixture.

Reads a file, folder or glob; drops empty documents and exact duplicates; embeds every document; clusters
them into a tree of domains; tokenises; and writes fixed-length samples as MDS or tar shards in the order
of the tree, so that one copy on disk serves every number of domains.

  braidstream build texts/ --out corpus
  braidstream build 'texts/*.jsonl.zst' --out corpus --branching 64,64 \\
      --target recipes=recipes.train.jsonl,recipes.test.jsonl
  braidstream build texts/ --out corpus --model static --max-documents 20000     (a quick look)
  braidstream build texts/ --out s3://bucket/corpus
  braidstream build texts/ --out corpus --engine ray                             (on a cluster)

Embedding takes nearly all of the time: about 40 to 130 documents/s on two cores with `minilm`, thousands with
`static`. Data moves in parts, so memory does not grow with the corpus: --sort-memory and --workers bound it.
A build that was stopped continues with the same command, at the part where it was; with other options it
repeats only the stages that they affect. Work files are kept in OUT/.build (or --work) for that; remove the
folder when the corpus is final. Afterwards: `braidstream inspect OUT`.

For a cluster, run `ray start --head` here and `ray start --address HOST:6379` on the other machines first
(docs/clustering.md). The engine may change between runs of one build."""


def main(argv: Sequence[str]) -> int:
    """Run `braidstream build` with the given arguments; return the exit code."""
    config = parse(argv)
    report = build(config)
    if report.nothing_to_do:
        print(f"{config.out} is already built from this input with these options; nothing to do.")
        return 0
    write_json(config.folder / REPORT_FILE, report_content(report))
    print_report(config, report)
    return 0


def parse(argv: Sequence[str]) -> BuildConfig:
    """Read the options.

    Raises `BuildError` when the shell has made several texts of a glob.
    """
    import tyro

    config, unknown = tyro.cli(
        BuildConfig,
        prog="braidstream build",
        description=DESCRIPTION,
        args=list(argv),
        return_unknown_args=True,
        config=(tyro.conf.DisallowNone,),
    )
    more = [text for text in unknown if Path(text).exists()]
    if more:
        raise BuildError(
            f"{config.corpus!r} and then {more[0]!r} are named; a build takes one file, folder or glob. "
            "Quote a glob, such as 'texts/*.jsonl', so that the shell leaves it alone, or name the folder."
        )
    if unknown:  # says what it does not know, and ends
        tyro.cli(
            BuildConfig, prog="braidstream build", args=list(argv), config=(tyro.conf.DisallowNone,)
        )
    return config


def report_content(report: BuildReport) -> dict[str, Any]:
    """The closing note as plain JSON."""
    return {
        "fingerprint": report.manifest.fingerprint,
        "seconds": round(report.seconds, 1),
        "stages": [asdict(record) for record in report.stages],
        "counts": asdict(report.manifest.counts),
        "levels": list(report.manifest.tree.levels),
        "samples": report.manifest.num_samples,
        "skipped_input": report.skipped_input,
        "examples_of_skipped": list(report.examples_of_skipped),
    }


def print_report(config: BuildConfig, report: BuildReport) -> None:
    """Print the closing note: stages, then what came out."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=None, box=None, pad_edge=False)
    for column in ("stage", "worked on", "seconds", "per second", "peak memory"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for record in report.stages:
        if not record.units and record.name != "finish":
            continue
        table.add_row(
            record.name + (" (earlier run)" if record.reused else ""),
            f"{record.units:,} {record.unit}",
            f"{record.seconds:,.1f}",
            f"{record.units / max(record.seconds, 1e-9):,.0f}" if record.units != 1 else "",
            f"{record.peak_memory_bytes / 2**20:,.0f} MiB",
        )
    console.print(table)
    manifest = report.manifest
    counts = manifest.counts
    assert manifest.sample is not None, "a build makes token corpora"
    lines = [
        f"{counts.documents:,} documents, {counts.tokens:,} tokens, {manifest.num_samples:,} samples of "
        f"{manifest.sample.tokens_per_sample} tokens; domains per level: "
        + ", ".join(map(str, manifest.tree.levels)),
        f"left out: {counts.duplicate_documents:,} duplicates, {counts.empty_documents:,} empty, "
        f"{counts.heldout_documents:,} held out for validation, {report.skipped_input:,} unreadable",
    ]
    leaves, asked = manifest.tree.levels[-1], math.prod(config.branching)
    if leaves < asked:
        lines.append(
            f"leaves: {leaves:,} where --branching {','.join(map(str, config.branching))} allows {asked:,}; "
            f"a node of fewer than {config.min_split} documents (--min-split) is not split, nor one whose "
            "documents are all alike"
        )
    lines += _few_documents(counts.documents, manifest.tree.levels[1])
    if manifest.tree.empty_leaves:
        lines.append(f"{manifest.tree.empty_leaves:,} leaves own no sample (too small for a block)")
    examples = report.examples_of_skipped
    lines += [f"  unreadable: {example}" for example in examples[:SHOWN_EXAMPLES]]
    if len(examples) > SHOWN_EXAMPLES:
        lines.append(f"  the first {len(examples):,} are listed in {config.folder / REPORT_FILE}")
    lines.append(f"corpus: {config.out}   next: braidstream inspect {config.folder}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _few_documents(documents: int, domains: int) -> list[str]:
    """A hint where the domains of the first level are too small, and could be fewer."""
    fewer = [str(branching) for branching in (8, 16) if branching < domains]
    if documents >= FEW_DOCUMENTS * domains or not fewer:
        return []
    return [
        f"few documents: about {documents / domains:,.0f} for each of the {domains:,} domains of the first "
        f"level, where one wants hundreds; build again with --branching {' or '.join(fewer)}, which keeps "
        "the embeddings"
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
