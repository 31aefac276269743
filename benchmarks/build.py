"""What a build costs, stage by stage, as the corpus grows: documents per second and peak memory.

    python -m benchmarks.build TEXTS                                 # 10k, 100k and 1M documents
    python -m benchmarks.build TEXTS --documents 10000 --model minilm --whole

TEXTS is a folder of JSON Lines (plain, .gz or .zst; column `text`). Documents are passages of its texts, of
at least 200 characters, evenly from all of them, so that 300 MB make a million different ones; with --whole
they are the texts as they are. Their vectors are synthetic, 64 x 64 directions and noise, brought along with
--embeddings, because embedding a million documents on a CPU takes hours; with --model they are embedded.
Each size is one `braidstream build --branching 64,64` of its own, with the work removed afterwards.

A stage's peak is the memory that the build and its workers hold, without pages of mapped files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.table import machine_line, table
from benchmarks.texts import texts_by_file

PASSAGE_CHARACTERS = 200
DIMENSIONS = 384
BRANCHING = 64
NOISE = 0.6
"""Length of the noise beside a direction of length 1."""
EMBEDDING = ("static-model", "embed")


def main() -> None:
    """Print a table of stages by sizes; with --json, keep the reports of the builds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path)
    parser.add_argument("--documents", default="10000,100000,1000000")
    parser.add_argument(
        "--whole", action="store_true", help="texts as they are, not cut to passages"
    )
    parser.add_argument("--model", help="embed with this model instead of synthetic vectors")
    parser.add_argument(
        "--scratch", type=Path, help="folder for the builds (default: the system's)"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = [int(size) for size in options.documents.split(",")]
    reports = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="braidstream-bench-", dir=options.scratch) as name:
            reports[size] = build(Path(name), options.texts, size, options.model, options.whole)
        if options.json is not None:
            options.json.write_text(json.dumps({"machine": machine_line(), "reports": reports}))
    print(f"\n{machine_line()}\n\n{stages_table(reports)}")
    for size, report in reports.items():
        print(summary(size, report, embedded=options.model is not None))


def build(folder: Path, texts: Path, size: int, model: str | None, whole: bool) -> dict[str, Any]:
    """Make the documents and build a corpus of them; what the build reports."""
    source = folder / "documents.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for text in chosen(texts, size, whole):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    options = ["--model", model] if model else ["--embeddings", "vectors"]
    if model is None:
        write_vectors(folder / "vectors", source.name, size)
    command = [sys.executable, "-m", "pipeline.cli", "build", source.name, "--out", "corpus"]
    branching = f"{BRANCHING},{BRANCHING}"
    subprocess.run([*command, "--branching", branching, *options], cwd=folder, check=True)
    report: dict[str, Any] = json.loads((folder / "corpus" / "build_report.json").read_text())
    return report


def chosen(folder: Path, size: int, whole: bool) -> Iterator[str]:
    """`size` documents, evenly from all that the texts give."""
    total = sum(1 for _ in documents(folder, whole))
    if total < size:
        raise SystemExit(
            f"{folder} gives {total:,} documents, and {size:,} are wanted: take fewer."
        )
    for number, text in enumerate(documents(folder, whole)):
        if (number + 1) * size // total > number * size // total:
            yield text


def documents(folder: Path, whole: bool) -> Iterator[str]:
    """All texts, or all passages of them."""
    for texts in texts_by_file(folder):
        for text in texts:
            yield from [text] if whole else passages(text)


def passages(text: str) -> Iterator[str]:
    """Cut at the first space after PASSAGE_CHARACTERS; a shorter rest is left out."""
    begin = 0
    while len(text) - begin >= PASSAGE_CHARACTERS:
        end = text.find(" ", begin + PASSAGE_CHARACTERS)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        begin = end + 1


def write_vectors(folder: Path, file: str, size: int) -> None:
    """Unit vectors of `size` documents of `file`, as parts of Arrow with their names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    coarse = unit(rng.standard_normal((BRANCHING, 1, DIMENSIONS)))
    directions = unit(coarse + unit(rng.standard_normal((BRANCHING, BRANCHING, DIMENSIONS))))
    directions = directions.reshape(-1, DIMENSIONS).astype(np.float32)
    for part, begin in enumerate(range(0, size, 65_536)):
        count = min(65_536, size - begin)
        noise = unit(rng.standard_normal((count, DIMENSIONS), dtype=np.float32))
        own = directions[rng.integers(0, len(directions), count)]
        vectors = unit(own + NOISE * noise).astype(np.float16)
        rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSIONS)
        names = [f"{file}:{row}" for row in range(begin + 1, begin + count + 1)]
        columns = pa.table({"document": names, "vector": rows})
        path = str(folder / f"part-{part:05}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
            writer.write_table(columns)


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Rows of length 1."""
    scaled: NDArray[Any] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def stages_table(reports: dict[int, dict[str, Any]]) -> str:
    """Seconds, rate and peak memory of every stage at every size."""
    names = [stage["name"] for stage in next(iter(reports.values()))["stages"]]
    header = ["stage"]
    for size in reports:
        header += [f"{size:,}: seconds", "per second", "peak"]
    rows = []
    for number, name in enumerate(names):
        row = [name]
        for report in reports.values():
            stage = report["stages"][number]
            rate = stage["units"] / max(stage["seconds"], 1e-9)
            memory = f"{stage['peak_memory_bytes'] / 2**20:,.0f} MiB"
            row += [f"{stage['seconds']:,.1f}", f"{rate:,.0f} {stage['unit']}", memory]
        rows.append(row)
    return table(header, rows)


def summary(size: int, report: dict[str, Any], *, embedded: bool) -> str:
    """The whole build in one line."""
    seconds = {stage["name"]: stage["seconds"] for stage in report["stages"]}
    peak = max(stage["peak_memory_bytes"] for stage in report["stages"]) / 2**20
    line = f"{size:,} documents: {report['seconds']:,.0f} s, at most {peak:,.0f} MiB"
    if embedded:
        embedding = sum(seconds.get(name, 0.0) for name in EMBEDDING)
        rest = sum(seconds.values()) - embedding
        line += f"; embedding {embedding:,.0f} s, everything else {rest / embedding:.1%} of that"
    return line


if __name__ == "__main__":
    main()
