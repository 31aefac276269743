"""Every MDS encoding decodes to what stock mosaicml-streaming decodes it to."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import CorpusError
from pipeline.samples.mds_records import fixed_size, record_decoder, token_array

RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 255, (7, 5, 3), dtype=np.uint8))
NUMBERS = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
VALUES: dict[str, list[Any]] = {
    "bytes": [b"", b"\x00\xff raw", b"x" * 1000],
    "str": ["", "Zopf 🥨", "long " * 100],
    "int": [0, -1, 2**63 - 1],
    "str_int": [0, -(10**40), 10**40],
    "str_float": [0.1, -1e300, float("inf")],
    "str_decimal": [Decimal("0.10"), Decimal("-1e-50"), Decimal(7)],
    "json": [{"a": [1, 2.5, None]}, [], "text"],
    **{name: [0, 1, 100] for name in NUMBERS},
    **{f"ndarray:{name}": [np.arange(5).astype(name)] * 3 for name in NUMBERS},
    "ndarray": [
        np.arange(6, dtype=name).reshape(1, 2, 3) for name in ("uint8", "int64", "float16")
    ],
    "ndarray:int16": [np.ones((300, 2), np.int16), np.ones(70_000, np.int16), np.ones(1, np.int16)],
    "ndarray:float32:2,3": [RNG.random((2, 3), dtype=np.float32) for _ in range(3)],
    "ndarray:uint16:8": [np.arange(8, dtype=np.uint16) + i for i in range(3)],
    "pil": [PICTURE, PICTURE.convert("L"), PICTURE.rotate(90)],
    "jpeg": [PICTURE] * 3,
    "png": [PICTURE, PICTURE.convert("L"), PICTURE],
    "list[pil]": [[PICTURE], [], [PICTURE, PICTURE.convert("L")]],
    "list[jpeg]": [[PICTURE], [], [PICTURE, PICTURE]],
    "list[png]": [[PICTURE], [], [PICTURE, PICTURE]],
}


def stock_samples(folder: Path, columns: dict[str, str], samples: list[dict[str, Any]]) -> Any:
    """Write with the stock writer: (bytes of each record, what the stock reader makes of it)."""
    from streaming import MDSWriter
    from streaming.base.format.mds.reader import MDSReader

    with MDSWriter(out=str(folder), columns=columns) as writer:
        for sample in samples:
            writer.write(sample)
    reader = MDSReader.from_json(str(folder), "", writer.shards[0])
    records = [reader.get_sample_data(i) for i in range(len(samples))]
    return records, [reader.decode_sample(record) for record in records]


def same(ours: Any, stock: Any) -> bool:
    if isinstance(stock, Image.Image):
        return ours.mode == stock.mode and ours.tobytes() == stock.tobytes()
    if isinstance(stock, np.ndarray):
        return ours.dtype == stock.dtype and np.array_equal(ours, stock)
    if isinstance(stock, list):
        return len(ours) == len(stock) and all(map(same, ours, stock))
    return type(ours) is type(stock) and bool(ours == stock)


@pytest.mark.parametrize("encoding", VALUES)
def test_an_encoding_decodes_as_stock_streaming_does(tmp_path: Path, encoding: str) -> None:
    columns = {"before": "str", "value": encoding, "z after": "int32"}
    samples = [
        {"before": "b" * i, "value": value, "z after": i}
        for i, value in enumerate(VALUES[encoding])
    ]
    records, stock = stock_samples(tmp_path / "mds", columns, samples)
    decode = record_decoder(columns)
    for record, expected in zip(records, stock, strict=True):
        found = decode(record)
        assert list(found) == list(expected)
        assert all(same(found[name], expected[name]) for name in columns)


def test_an_array_of_jpegs_decodes_as_stock_streaming_does(tmp_path: Path) -> None:
    import io

    stream = io.BytesIO()
    PICTURE.save(stream, format="JPEG")
    columns = {"value": "jpeg_array"}
    samples = [{"value": [stream.getvalue()] * count} for count in (1, 3)]
    records, stock = stock_samples(tmp_path / "mds", columns, samples)
    for name in ("jpeg_array", "jpegarray"):
        for record, expected in zip(records, stock, strict=True):
            assert same(record_decoder({"value": name})(record)["value"], expected["value"])


def test_every_stock_encoding_is_covered() -> None:
    from streaming.base.format.mds.encodings import get_mds_encodings

    tested = {encoding.partition(":")[0] for encoding in VALUES}
    assert get_mds_encodings() == tested | {"jpeg_array", "jpegarray", "pkl"}


@pytest.mark.parametrize("encoding", VALUES)
def test_fixed_lengths_are_those_of_stock_streaming(encoding: str) -> None:
    from streaming.base.format.mds.encodings import get_mds_encoded_size

    assert fixed_size(encoding) == get_mds_encoded_size(encoding)


def test_decoded_arrays_may_be_written_to(tmp_path: Path) -> None:
    records, _ = stock_samples(
        tmp_path / "mds", {"x": "ndarray:uint16"}, [{"x": np.arange(3, dtype=np.uint16)}]
    )
    record_decoder({"x": "ndarray:uint16"})(records[0])["x"][0] = 7


def test_pickles_are_refused_without_leave_and_not_even_imported(tmp_path: Path) -> None:
    records, _ = stock_samples(tmp_path / "mds", {"x": "pkl"}, [{"x": {"any": object}}])
    with pytest.raises(CorpusError, match=r"'x' holds pickles.*allow_pickle=True"):
        record_decoder({"x": "pkl"})
    assert record_decoder({"x": "pkl"}, allow_pickle=True)(records[0]) == {"x": {"any": object}}


@pytest.mark.parametrize(
    "encoding",
    ["audio", "ndarray:complex64", "ndarray:uint16:a", "ndarray:uint16:0", "ndarray:a:1:2"],
)
def test_an_unknown_encoding_is_an_error_that_lists_the_known_ones(encoding: str) -> None:
    with pytest.raises(CorpusError, match=r"is not known; this version reads bytes, str, int"):
        record_decoder({"x": encoding})


def test_images_without_pillow_are_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CorpusError, match="pip install pillow"):
        record_decoder({"x": "jpeg"})


def test_a_record_that_is_cut_off_does_not_decode(tmp_path: Path) -> None:
    columns = {"a": "str", "b": "bytes"}
    records, _ = stock_samples(tmp_path / "mds", columns, [{"a": "abc", "b": b"defg"}])
    with pytest.raises(ValueError, match="its columns take 15 bytes of 12"):
        record_decoder(columns)(records[0][:-3])


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ndarray:uint16:256", ("uint16", 256)),
        ("ndarray:uint32:8", ("uint32", 8)),
        ("ndarray:int32:8", None),
        ("ndarray:uint16:8,2", None),
        ("ndarray:uint16", None),
        ("str", None),
    ],
)
def test_columns_of_token_blocks_are_recognised(
    encoding: str, expected: tuple[str, int] | None
) -> None:
    assert token_array(encoding) == expected
