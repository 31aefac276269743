"""`braidstream add`: the command line and the closing note."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clustering.add import FAR_SHARE, AddReport, add
from clustering.add_config import AddConfig
from clustering.documents.records import SHOWN_EXAMPLES

DESCRIPTION = """Add documents to a corpus: a new version of it, with nothing rewritten.

Drops what is empty, in the corpus already, or equal to a held-out document or one of a target set; puts the
rest into the leaves of the tree that is there, with the same embedding model and tokenizer; and appends
shards. Whoever reads the version before goes on reading it: open_corpus(CORPUS, version=N).

  braidstream add corpus new/*.jsonl.zst
  braidstream add /shared/corpus /shared/new --engine ray      (on a cluster whose nodes share the folders)
  braidstream push corpus s3://bucket/corpus        (sends only what was added)

An addition that was stopped continues with the same command."""


def main(argv: Sequence[str]) -> int:
    """Run `braidstream add` with the given arguments; return the exit code."""
    config = parse(argv)
    print_report(config, add(config))
    return 0


def parse(argv: Sequence[str]) -> AddConfig:
    """Read the options."""
    import tyro

    return tyro.cli(
        AddConfig,
        prog="braidstream add",
        description=DESCRIPTION,
        args=list(argv),
        config=(tyro.conf.DisallowNone,),
    )


def print_report(config: AddConfig, report: AddReport) -> None:
    """Print what was added, what was left out, and whether it still fits the tree."""
    left_out = (
        f"left out: {report.known:,} that were there already, {report.empty:,} empty, "
        f"{report.skipped_input:,} unreadable"
    )
    examples = report.examples_of_skipped[:SHOWN_EXAMPLES]
    lines = [f"  unreadable: {example}" for example in examples]
    if not report.documents:
        print("\n".join([f"nothing new for {config.corpus}; it stays as it is.", left_out, *lines]))
        return
    manifest = report.manifest
    counts = manifest.added[-1].counts
    samples = manifest.segments[-1].num_samples
    print(
        f"added {counts.documents:,} documents, {counts.tokens:,} tokens, {samples:,} samples in "
        f"{report.seconds:.1f} s\n{left_out}"
    )
    print("\n".join([*lines, _fit(report)]).strip())
    total = manifest.counts
    print(
        f"corpus: {config.corpus}, version {manifest.version}: {total.documents:,} documents, "
        f"{total.tokens:,} tokens; the one before: open_corpus({str(config.corpus)!r}, "
        f"version={manifest.version - 1})"
    )


def _fit(report: AddReport) -> str:
    """How well the new documents fit the tree."""
    if report.far_share is None:
        return (
            "whether they fit the tree is not known: the corpus was built before builds recorded it"
        )
    found = (
        f"{report.far_share:.1%} of them are farther from their leaf's centroid than {FAR_SHARE:.0%} of the "
        "documents that the tree was built from"
    )
    return f"{found}: the tree may no longer fit, build it again" if report.has_drifted else found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
