"""Text that is on every machine where Braidstream is installed: documentation, code, licences.

The packages of the `build` extra bring prose about game servers, payment cards and street maps (the
service documentation of botocore), docstrings, C++ headers, interface definitions and more. Each kind of
text becomes one file, so the file names are labels to judge the domains by. A kind whose package is not
there is left out.

    installed_task(folder)     writes folder/text/<kind>.jsonl and folder/target/<kind>.*.jsonl
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import random
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from demo_task import Task, hold_out, write_documents

TARGET = "graph-theory"
"""The kind of text that plays the user's task."""
SHORTEST, LONGEST = 400, 1_500
"""Characters of a document. Embedding models read about the first 1,000."""
DOCUMENTS_PER_KIND = 200
FEWEST_DOCUMENTS = 60
"""A kind with fewer is left out: it could not become a domain of its own."""
FEWEST_KINDS = 6
NEW_SHARE = 0.7
"""A document is kept when this share of its characters is in lines that no earlier one has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of text and where it comes from."""

    name: str
    collect: Callable[[], Iterable[str]]


def collect_kinds(*, seed: int = 0) -> dict[str, Sequence[str]]:
    """All kinds of text that this machine has: name -> documents, in random order.

    Raises `SystemExit` with a remedy when too few kinds are there to be worth clustering.
    """
    found: dict[str, Sequence[str]] = {}
    for kind in KINDS:
        documents = list(distinct(text for text in kind.collect() if len(text) >= SHORTEST))
        random.Random(f"{seed} {kind.name}").shuffle(documents)
        if len(documents) >= FEWEST_DOCUMENTS:
            found[kind.name] = documents[:DOCUMENTS_PER_KIND]
    if len(found) < FEWEST_KINDS:
        raise SystemExit(
            f"error: found {len(found)} kinds of text ({', '.join(found) or 'none'}), and the demo needs "
            f"{FEWEST_KINDS}. They come with the packages of Braidstream's extras: run `make install`, or "
            "use your own text: make demo CORPUS=path."
        )
    return found


def installed_task(folder: Path) -> Task:
    """Write folder/text/<kind>.jsonl, and one kind as a target set that is held out from it."""
    kinds = collect_kinds()
    name = TARGET if TARGET in kinds else next(iter(kinds))
    train, test, kinds[name] = hold_out(folder, name, kinds[name])
    for kind, documents in kinds.items():
        write_documents(folder / "text" / f"{kind}.jsonl", documents)
        print(f"  {kind:<16} {len(documents):>4} documents")
    return Task(corpus=str(folder / "text"), name=name, train=str(train), test=str(test))


def distinct(texts: Iterable[str]) -> Iterator[str]:
    """Leave out what mostly repeats earlier texts: licences and service descriptions share passages."""
    seen: set[str] = set()
    for text in texts:
        lines = [line.strip() for line in text.splitlines()]
        fresh = sum(len(line) for line in set(lines) - seen)
        if fresh >= NEW_SHARE * sum(map(len, lines)):
            yield text
            seen.update(lines)


# --- Service documentation: English prose inside botocore's JSON models -----------------------------

_ROUTINE = re.compile(r"token|max(results|items|records)|page|tags?$|arn$", re.IGNORECASE)
"""Members that every service has and describes alike."""


def services(*names: str) -> Iterator[str]:
    """What botocore's models of some services say about their operations and data types."""
    for name in names:
        for model in _newest_model(name):
            shapes = model["shapes"].values()
            for shape in (s for s in shapes if s["type"] == "structure" and not s.get("exception")):
                yield prose(_described(shape))
            for operation in model["operations"].values():
                yield prose([operation.get("documentation", "")])


def prose(parts: Iterable[str]) -> str:
    """HTML paragraphs as plain text, cut to the length of a document."""
    text = "\n".join(part for part in parts if part)
    text = re.sub(r"</?(p|li|ul|ol|dl|dt|dd|h\d|br|note|important)\b[^>]*>", "\n", text)
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    return cut(re.sub(r"\s*\n\s*", "\n", re.sub(r"[ \t]+", " ", text)).strip())


def _newest_model(service: str) -> Iterator[dict[str, Any]]:
    for folder in package("botocore"):
        for path in sorted((folder / "data" / service).glob("*/service-2.json.gz"))[-1:]:
            yield json.loads(gzip.decompress(path.read_bytes()))


def _described(shape: dict[str, Any]) -> Iterator[str]:
    yield shape.get("documentation", "")
    for name, member in shape.get("members", {}).items():
        if not _ROUTINE.search(name) and len(member.get("documentation", "")) >= 40:
            yield f"<p>{name}: {member['documentation']}</p>"


# --- Python packages: docstrings; other languages: files cut at blank lines -------------------------


def docstrings(*roots: str) -> Iterator[str]:
    """Docstrings of all modules below `package/folder`, tests left out."""
    for root in roots:
        name, _, inner = root.partition("/")
        for folder in package(name):
            for path in sorted((folder / inner).rglob("*.py")):
                if "tests" not in path.parts:
                    yield from _docstrings_of(path)


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            yield cut(ast.get_docstring(node) or "")


def files(root: str, pattern: str) -> Iterator[str]:
    """Files below `package/folder` that match, in pieces."""
    name, _, inner = root.partition("/")
    for folder in package(name):
        for path in sorted((folder / inner).glob(pattern)):
            yield from pieces(read(path))


def licences() -> Iterator[str]:
    """The licence texts of all installed distributions, in pieces."""
    paths = {
        Path(str(distribution.locate_file(file)))
        for distribution in distributions()
        for file in distribution.files or ()
        if re.match(r"(licen[cs]e|copying|notice)", file.name, re.IGNORECASE)
    }
    for path in sorted(paths):
        if path.suffix in ("", ".txt", ".md"):
            yield from pieces(re.sub(r"[ \t]+", " ", read(path)))


def language_reference() -> Iterator[str]:
    """The reference of the Python language, which `help()` shows."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # left out of some minimal installations
        return
    for name in sorted(topics):
        yield from pieces(topics[name])


def package(name: str) -> Iterator[Path]:
    """The folders of an importable package, without importing it; none when it is not installed."""
    spec = find_spec(name)
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())


def read(path: Path) -> str:
    """A text file; empty when it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def cut(text: str) -> str:
    """The beginning of a text, up to a line end or a space."""
    if len(text) <= LONGEST:
        return text.strip()
    head = text[:LONGEST]
    return head[: max(head.rfind("\n"), head.rfind(" "), SHORTEST)].strip()


def pieces(text: str) -> Iterator[str]:
    """Cut a long text at blank lines into documents; paragraphs that are too long are cut off."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if len(piece) >= SHORTEST and len(piece) + len(paragraph) > LONGEST:
            yield cut(piece)
            piece = ""
        piece += paragraph + "\n\n"
    yield cut(piece)


KINDS = (
    Kind(name="game-servers", collect=lambda: services("gamelift", "gameliftstreams")),
    Kind(
        name="cryptography",
        collect=lambda: services(
            "payment-cryptography", "payment-cryptography-data", "kms", "acm-pca"
        ),
    ),
    Kind(name="email", collect=lambda: services("sesv2", "ses", "mailmanager", "workmail")),
    Kind(name="images-video", collect=lambda: services("rekognition", "textract")),
    Kind(name="object-storage", collect=lambda: services("s3", "s3control")),
    Kind(name="maps", collect=lambda: services("geo-routes", "geo-places", "geo-maps", "location")),
    Kind(name="graph-theory", collect=lambda: docstrings("networkx/algorithms")),
    Kind(
        name="algebra",
        collect=lambda: docstrings("sympy/functions", "sympy/ntheory", "sympy/polys"),
    ),
    Kind(name="data-frames", collect=lambda: docstrings("pandas/core")),
    Kind(name="python-language", collect=language_reference),
    Kind(name="licences", collect=licences),
    Kind(name="cpp-headers", collect=lambda: files("torch/include/ATen", "*.h")),
    Kind(name="cmake", collect=lambda: files("torch/share/cmake", "**/*.cmake")),
    Kind(name="interfaces", collect=lambda: files("google", "**/*.proto")),
)
