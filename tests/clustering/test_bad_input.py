"""A hundred files that are not what they should be: each is named or counted, none takes the memory."""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from clustering.build_command import main
from clustering.documents.input_files import LocalFile
from clustering.documents.inputs import find_inputs
from clustering.documents.readers import MAX_DOCUMENT_BYTES, read_documents
from clustering.documents.records import BadInput
from clustering.errors import InputError
from tests.clustering.conftest import write_model

GOOD = b"".join(
    json.dumps({"text": f"text {n} " + "word " * 50}).encode() + b"\n" for n in range(200)
)

Write = Callable[[Path], object]


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def tar(*members: tuple[str, bytes | None], kind: bytes = tarfile.SYMTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(content or b"")
            archive.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


def endless_line(path: Path) -> None:
    """200 MB of one line, in little disk."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "')
        for _ in range(200):
            file.write(b"x" * 10**6)
        file.write(b'"}\n' + GOOD)


def plain_endless_line(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(200):
            file.write(b"y" * 10**6)
        file.write(b"\n" + GOOD)


def unpublished_text(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)


def huge_member(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = MAX_DOCUMENT_BYTES + 1
        with Path("/dev/zero").open("rb") as zeros:
            archive.addfile(info, zeros)


def broken_lines() -> Iterator[tuple[str, bytes]]:
    yield "cut-short", GOOD + b'{"text": "half'
    yield "no-json", GOOD + b"plain words\n" + GOOD
    yield "single-quotes", GOOD + b"{'text': 'one'}\n"
    yield "trailing-comma", GOOD + b'{"text": "one",}\n'
    yield "two-on-a-line", GOOD + b'{"text": "one"} {"text": "two"}\n'
    yield "an-array", GOOD + b'["text"]\n'
    yield "a-number", GOOD + b"17\n"
    yield "a-string", GOOD + b'"text"\n'
    yield "a-null", GOOD + b"null\n"
    yield "nested-deep", GOOD + b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    yield "number-without-end", GOOD + b'{"text": ' + b"9" * 10_000 + b"}\n"
    yield "wrong-column", GOOD + b'{"words": "one"}\n'
    yield "no-text-anywhere", b'{"a": 1, "b": 2}\n'
    yield "two-candidates", b'{"one": "a", "two": "b"}\n'
    yield "text-is-a-number", GOOD + b'{"text": 1}\n'
    yield "text-is-a-list", GOOD + b'{"text": ["a"]}\n'
    yield "text-is-an-object", GOOD + b'{"text": {"a": "b"}}\n'
    yield "text-is-true", GOOD + b'{"text": true}\n'
    yield "latin-1", GOOD + '{"text": "größe"}\n'.encode("latin-1")
    yield "windows-1252", GOOD + b'{"text": "\x93quoted\x94"}\n'
    yield "shift-jis", GOOD + '{"text": "日本語"}\n'.encode("shift-jis")
    yield "utf-16", ("﻿" + GOOD.decode()).encode("utf-16-le")
    yield "utf-32", GOOD.decode().encode("utf-32")
    yield "half-a-surrogate", GOOD + b'{"text": "\\ud800 alone"}\n'
    yield "other-half", GOOD + b'{"text": "\\udc00"}\n'
    yield "half-a-name", GOOD + b'{"\\ud800": 1}\n'
    yield "raw-nul", GOOD + b'{"text": "a\x00b"}\n'
    yield "nul-lines", GOOD + b"\x00" * 40 + b"\n"
    yield "control-characters", GOOD + b'{"text": "a\x01b"}\n'
    yield "random-bytes", bytes(range(128, 256)) * 20 + b"\n"
    yield "empty", b""
    yield "an-archive", bz2.compress(GOOD)
    yield "html", b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"


def malformed() -> Iterator[tuple[str, Write]]:
    """(file name, how to write it), a hundred of them."""
    for name, content in broken_lines():
        yield f"{name}.jsonl", raw(content)
        if name != "empty":
            yield f"packed-{name}.jsonl.gz", raw(gzip.compress(content, mtime=0))
    packed, tight = gzip.compress(GOOD, mtime=0), zstandard.compress(GOOD)
    yield "gz-cut.jsonl.gz", raw(packed[:-20])
    yield "gz-half.jsonl.gz", raw(packed[: len(packed) // 2])
    yield "gz-head.jsonl.gz", raw(packed[:5])
    yield "gz-flipped.jsonl.gz", raw(packed[:60] + b"\xff\xff\xff" + packed[63:])
    yield "gz-wrong-sum.jsonl.gz", raw(packed[:-8] + b"\x00" * 8)
    yield "gz-is-none.jsonl.gz", raw(GOOD)
    yield "gz-then-garbage.jsonl.gz", raw(packed + b"garbage")
    yield "zst-cut.jsonl.zst", raw(tight[:-5])
    yield "zst-half.jsonl.zst", raw(tight[: len(tight) // 2])
    yield "zst-is-none.jsonl.zst", raw(GOOD)
    yield "zst-is-gz.jsonl.zst", raw(packed)
    yield "line-of-200-mb.jsonl.gz", endless_line
    yield "line-of-200-mb.jsonl", plain_endless_line
    yield "text-too-long.txt", unpublished_text
    yield "latin.txt", raw("größe".encode("latin-1"))
    yield "utf-16.md", raw("text".encode("utf-16"))
    yield "binary.txt", raw(bytes(range(256)))
    strings = pa.table({"text": ["one", "two"] * 500})
    whole = parquet(strings)
    yield "no-footer.parquet", raw(whole[:-10])
    yield "half.parquet", raw(whole[: len(whole) // 2])
    yield "no-head.parquet", raw(b"XXXX" + whole[4:-4] + b"XXXX")
    yield "flipped.parquet", raw(whole[:40] + b"\xff" * 40 + whole[80:])
    yield "is-json.parquet", raw(GOOD)
    yield "empty.parquet", raw(b"")
    yield "nested.parquet", raw(parquet(pa.table({"text": [{"a": "b"}], "n": [1]})))
    yield "list.parquet", raw(parquet(pa.table({"text": [["a", "b"]]})))
    yield "numbers.parquet", raw(parquet(pa.table({"text": [1, 2]})))
    yield "two.parquet", raw(parquet(pa.table({"one": ["a"], "two": ["b"]})))
    yield "twice.parquet", raw(parquet(pa.table([["a"], ["b"]], names=["text", "text"])))
    not_text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    yield "long.parquet", raw(parquet(pa.table({"text": ["one", "x" * (MAX_DOCUMENT_BYTES + 1)]})))
    yield "bytes.parquet", raw(parquet(pa.table({"text": not_text})))
    good_tar = tar(("a.txt", b"one"), ("b.txt", b"two"))
    yield "absolute.tar", raw(tar(("a.txt", b"one"), ("/tmp/evil.txt", b"two")))
    yield "dots.tar", raw(tar(("a.txt", b"one"), ("../../evil.txt", b"two")))
    yield "inner-dots.tar", raw(tar(("a/../../evil.txt", b"two")))
    yield "link.tar", raw(tar(("a.txt", b"one"), ("b.txt", None)))
    yield "hard-link.tar", raw(tar(("a.txt", b"one"), ("b.txt", None), kind=tarfile.LNKTYPE))
    yield "device.tar", raw(tar(("a.txt", None), kind=tarfile.CHRTYPE))
    yield "fifo.tar", raw(tar(("a.txt", None), kind=tarfile.FIFOTYPE))
    yield "cut.tar", raw(good_tar[:600])
    yield "is-json.tar", raw(GOOD)
    yield "empty.tar", raw(b"")
    yield "flipped.tar", raw(good_tar[:1024] + b"\xff" * 512 + good_tar[1536:])
    yield "huge-member.tar", huge_member
    half = b"\xff" * (MAX_DOCUMENT_BYTES // 2 + 1)
    halves = tar(("a.jpg", half), ("a.txt", half))
    yield "huge-sample.tar.gz", raw(gzip.compress(halves, 1, mtime=0))
    yield "bad-json.tar", raw(tar(("a.json", b"{no")))
    yield "json-without-text.tar", raw(tar(("a.json", b'{"a": 1}')))
    yield "pixels.tar", raw(tar(("a.txt", b"\xff\xfe\xfd")))
    yield "packed-cut.tar.gz", raw(gzip.compress(good_tar, mtime=0)[:-30])
    yield "loop.jsonl", lambda path: path.symlink_to(path.name)
    yield "dangling.jsonl", lambda path: path.symlink_to("nowhere.jsonl")
    yield "dangling.parquet", lambda path: path.symlink_to("nowhere.parquet")
    yield "pipe.jsonl", os.mkfifo
    yield "pipe.tar", os.mkfifo


MALFORMED = dict(malformed())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    for name, write in MALFORMED.items():
        write(folder / name)
    (folder / "good.jsonl").write_bytes(GOOD)
    (folder / "a-folder.jsonl").mkdir()
    (folder / "a-folder.jsonl" / "back").symlink_to(folder)
    return folder


def test_there_are_a_hundred(folder: Path) -> None:
    assert len(MALFORMED) >= 100
    assert {file.name for file in find_inputs(str(folder))} == {*MALFORMED, "good.jsonl"}


def place_of(name: str) -> str:
    """How a message about a file begins: with the line, where lines are what is wrong."""
    lines = name.removeprefix("packed-").split(".")[0]
    content = dict(broken_lines()).get(lines)
    if not content or ".jsonl" not in name:
        return f"{name}, line 1:" if name.startswith("line-of-200-mb") else name
    return f"{name}, line {201 if content.startswith(GOOD) else 1}:"


@pytest.mark.parametrize("name", MALFORMED)
def test_it_is_counted_or_refused_and_named(folder: Path, name: str) -> None:
    file = LocalFile(path=folder / name, name=name)
    skipping = BadInput(action="skip")
    kept = list(read_documents(file, text_column=None, bad=skipping))
    assert skipping.skipped >= 1
    assert skipping.examples[0].startswith(place_of(name))
    assert all(document.text for document in kept)
    with pytest.raises(InputError) as refused:
        list(read_documents(file, text_column=None, bad=BadInput(action="fail")))
    assert str(refused.value).startswith(place_of(name))


READ_ALL = """
import sys
from pathlib import Path
from clustering.documents.inputs import find_inputs
from clustering.documents.reading import ReadOptions, ReadTask, finish_reading, publish_files
from clustering.work.work_store import LocalWork
from tests.processes import peak_bytes

import pyarrow.compute, pyarrow.parquet, webdataset.tariterators

store = LocalWork(Path(sys.argv[2]))
units = publish_files(store, "read", find_inputs(sys.argv[1]))
options = ReadOptions(text_column=None, id_column=None, on_bad_input="skip", part_documents=256)
before = peak_bytes()
for unit in range(units):
    ReadTask(store=store, prefix="read", options=options)(unit)
print(finish_reading(store, "read", units).skipped, peak_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("names", "most"),
    [
        ("*.[jmt]*", 4 * MAX_DOCUMENT_BYTES),  # a line of 200 MB and its copy would be more
        ("*.parquet", 5 * MAX_DOCUMENT_BYTES),  # a page is held packed, unpacked and as strings
    ],
)
def test_all_at_once_stay_in_memory_and_in_place(
    folder: Path, tmp_path: Path, names: str, most: int
) -> None:
    outside = {path: path.lstat().st_mtime_ns for path in folder.iterdir()}
    found = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(folder / names), str(tmp_path / "work")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    skipped, grown = map(int, found.stdout.split())
    assert skipped >= len(fnmatch.filter(MALFORMED, names))
    assert grown < most
    assert {path: path.lstat().st_mtime_ns for path in folder.iterdir()} == outside
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert not Path("/tmp/evil.txt").exists()


def test_values_that_repeat_in_a_parquet_file_are_not_unpacked_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "repeats.parquet"
    pq.write_table(pa.table({"text": ["x" * 10**6] * 300}), path)
    held = pa.total_allocated_bytes()
    documents = read_documents(
        LocalFile(path=path, name=path.name), text_column=None, bad=BadInput()
    )
    assert next(documents).row == 1
    assert pa.total_allocated_bytes() - held < 150 * 10**6
    assert len(list(documents)) == 299


def test_a_build_counts_them_and_lists_where_they_are(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Most files repeat the same good lines, so whole parts are duplicates, too."""
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path / "model")
    options = ["--model", str(model), "--branching", "4", "--vocab-size", "400", "--min-split", "8"]
    assert main([str(folder), "--out", "corpus", *options, "--on-bad-input", "skip"]) == 0
    report = json.loads(Path("corpus/build_report.json").read_text("utf-8"))
    assert report["skipped_input"] >= len(MALFORMED)
    listed = report["examples_of_skipped"]
    assert len(listed) == report["skipped_input"]
    assert all(any(example.startswith(name) for example in listed) for name in MALFORMED)
    assert f"the first {len(listed)} are listed" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "model"}
