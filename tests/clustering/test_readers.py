from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from clustering.documents.input_files import LocalFile
from clustering.documents.inputs import find_inputs
from clustering.documents.readers import read_documents
from clustering.documents.reading import publish_files
from clustering.documents.records import BadInput, Document
from clustering.errors import InputError
from clustering.work.work_store import LocalWork


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(path: Path, text_column: str | None = None, action: Any = "fail") -> list[Document]:
    file = LocalFile(path=path, name=path.name)
    return list(read_documents(file, text_column=text_column, bad=BadInput(action=action)))


def texts(path: Path, text_column: str | None = None, action: Any = "fail") -> list[str]:
    return [document.text for document in read(path, text_column, action)]


def failure(path: Path, text_column: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read(path, text_column)
    return str(caught.value)


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


TWO = lines({"text": "one"}, {"text": "zwei ü"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", TWO),
        ("a.json", b"\n" + TWO + b"  \n"),
        ("a.ndjson", b"\xef\xbb\xbf" + TWO),
        ("a.jsonl.gz", gzip.compress(TWO, mtime=0)),
        ("a.jsonl.zst", zstandard.compress(TWO[:20]) + zstandard.compress(TWO[20:])),
        ("a.tar", tar_of({"1.txt": b"one", "1.jpg": b"\xff\xd8", "2.txt": "zwei ü".encode()})),
        ("b.tar", tar_of({"1.json": lines({"text": "one"}), "2.json": lines({"text": "zwei ü"})})),
    ],
)
def test_every_kind_gives_the_same_documents(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == ["one", "zwei ü"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(["one", None, "zwei"], pa.string()).cast(kind)
    pq.write_table(pa.table({"id": [1, 2, 3], "content": column}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [
        Document(text="one", row=1),
        Document(text="", row=2),
        Document(text="zwei", row=3),
    ]


def test_plain_text_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Title\n\nBody", "utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"Body"))
    assert texts(tmp_path / "a.md") == ["# Title\n\nBody"]
    assert texts(tmp_path / "b.txt.gz") == ["Body"]


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    marked = b"\xef\xbb\xbfBody"
    (tmp_path / "a.txt").write_bytes(marked)
    (tmp_path / "b.tar").write_bytes(tar_of({"a.txt": marked}))
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf" + lines({"text": "Body"}))
    for name in ("a.txt", "b.tar", "c.jsonl"):
        assert texts(tmp_path / name) == ["Body"]


def test_rows_are_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n\n{"text": "b"}\n')
    assert [document.row for document in read(tmp_path / "a.jsonl")] == [1, 3]


def test_the_text_column(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({"title": "t", "content": "c", "text": "x"}))
    assert texts(path) == ["x"]
    assert texts(path, "title") == ["t"]
    assert "has no column 'nope'" in failure(path, "nope")
    path.write_bytes(lines({"id": 7, "utterance": "hello"}))
    assert texts(path) == ["hello"]
    path.write_bytes(lines({"question": "q", "answer": "a"}))
    message = failure(path)
    assert "question, answer" in message
    assert "--text-column" in message


def test_a_null_text_says_nothing_against_its_column(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    null = {"text": None, "content": None, "url": "http://a/0"}
    path.write_bytes(lines(null, {**null, "text": "x"}, {**null, "content": "c"}))
    assert texts(path) == ["", "x", ""]
    path.write_bytes(lines(null, {**null, "content": "c"}, null))
    assert texts(path) == ["", "c", ""]
    table = pa.table({"text": pa.nulls(2), "url": ["http://a/0", "http://a/1"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["", ""]
    pq.write_table(table.append_column("content", [["c", "d"]]), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["c", "d"]


def test_a_text_that_is_none_makes_no_other_column_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({"text": 5, "url": "http://a/0"}, {"text": "x", "url": "http://a/1"}))
    assert "line 1: cannot tell which column holds the text" in failure(path)
    assert texts(path, action="skip") == ["x"]


def test_parquet_columns_that_hold_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "n": [2]}), tmp_path / "a.parquet")
    assert "id, n" in failure(tmp_path / "a.parquet")
    assert "int64" in failure(tmp_path / "a.parquet", "n")


BROKEN_LINES = {
    "no JSON": b"{nope}\n",
    "a JSON array": b"[1]\n",
    "has no column 'text'": lines({"other": "x"}),
    "not text": lines({"text": 5}),
    "surrogate": b'{"text": "\\ud800"}\n',
    "codec": b'{"text": "\xff"}\n',
}


@pytest.mark.parametrize("problem", BROKEN_LINES)
def test_a_broken_line_is_named_or_skipped(tmp_path: Path, problem: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({"text": "one"}) + BROKEN_LINES[problem] + lines({"text": "two"}))
    message = failure(path)
    assert "a.jsonl, line 2" in message
    assert problem in message
    assert "--on-bad-input skip" in message
    bad = BadInput(action="skip")
    file = LocalFile(path=path, name="a.jsonl")
    found = [d.text for d in read_documents(file, text_column=None, bad=bad)]
    assert found == ["one", "two"]
    assert bad.skipped == 1
    assert "line 2" in bad.examples[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(TWO, mtime=0)[:-12]),
        ("a.jsonl.zst", zstandard.compress(TWO)[:-4]),
        ("b.jsonl.zst", b"not zstd at all"),
        ("a.parquet", b"PAR1 not really"),
        ("a.tar", tar_of({"1.txt": b"x" * 5000})[:2000]),
        ("c.tar", b"no tar" * 200),
        ("d.tar", tar_of({"1.json": b"{nope"})),
        ("a.txt", b"\xff\xfe bad"),
    ],
)
def test_a_broken_file_is_named_or_skipped(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = failure(tmp_path / name)
    assert message.startswith(name)
    assert "--on-bad-input skip" in message
    bad = BadInput(action="skip")
    list(read_documents(LocalFile(path=tmp_path / name, name=name), text_column=None, bad=bad))
    assert bad.skipped == 1


def test_find_inputs(tmp_path: Path) -> None:
    for name in ("b.jsonl", "sub/a.txt", "c.JSONL.GZ", "d.csv", ".hidden/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [file.name for file in find_inputs(str(tmp_path))]
    assert names == ["b.jsonl", "c.JSONL.GZ", "sub/a.txt"]
    assert [f.name for f in find_inputs(str(tmp_path / "*.jsonl"))] == ["b.jsonl"]
    assert [f.name for f in find_inputs(str(tmp_path / "**" / "*.txt"))] == [
        ".hidden/x.txt",
        "sub/a.txt",
    ]
    assert [f.name for f in find_inputs(str(tmp_path / "b.jsonl"))] == ["b.jsonl"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "a.jsonl").write_bytes(TWO)
    (tmp_path / "disk" / "deep" / "back").symlink_to(tmp_path / "disk")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "link").symlink_to(tmp_path / "disk")
    for corpus in (tmp_path / "texts", tmp_path / "texts" / "**" / "*.jsonl"):
        assert [file.name for file in find_inputs(str(corpus))] == ["link/deep/a.jsonl"]


@pytest.mark.parametrize("corpus", ["texts", "texts/**/*.jsonl", "texts/*/*.jsonl"])
def test_a_folder_that_cannot_be_listed_is_bad_input(without_rights: Path, corpus: str) -> None:
    for name in ("open", "closed", "closed/deep", ".closed"):
        (without_rights / "texts" / name).mkdir(parents=True)
    for name in ("open/a.jsonl", "closed/b.jsonl"):
        (without_rights / "texts" / name).write_bytes(TWO)
    for name in ("closed", ".closed") if corpus == "texts" else ("closed",):
        (without_rights / "texts" / name).chmod(0)
    with pytest.raises(InputError, match=r"closed: is a folder that cannot be listed \(Permission"):
        find_inputs(corpus)
    bad = BadInput(action="skip")
    assert [Path(file.name).name for file in find_inputs(corpus, bad)] == ["a.jsonl"]
    assert bad.skipped == 1
    assert [file.name for file in find_inputs("texts/open/*.jsonl")] == ["a.jsonl"]


@pytest.mark.parametrize("corpus", ["missing", "missing/*.jsonl", "d.csv"])
def test_nothing_to_read(tmp_path: Path, corpus: str) -> None:
    (tmp_path / "d.csv").write_text("x")
    with pytest.raises(InputError, match="the input must be a file, folder or glob"):
        find_inputs(str(tmp_path / corpus))


@pytest.mark.parametrize("place", ["texts/**.jsonl", "a**/b.jsonl", "s3://bucket/**.jsonl"])
def test_two_stars_stand_alone(place: str) -> None:
    with pytest.raises(InputError, match=r"has '\*\*' beside other characters.*such as \*\*/\*"):
        find_inputs(place)


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", b"caf\xe9/a.jsonl"])
def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(TWO)
    for corpus in (tmp_path, path):
        with pytest.raises(InputError, match=r"caf\\udce9.* is not UTF-8.*Rename it"):
            publish_files(LocalWork(tmp_path / "work"), "read", find_inputs(str(corpus)))
