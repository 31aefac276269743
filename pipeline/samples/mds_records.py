"""MDS records: the bytes of one sample of a stock MDS shard to a dict of columns.

The layout is that of mosaicml-streaming's `MDSWriter` (streaming/base/format/mds in its source): columns in
the order of their names; first the lengths, uint32, of those columns whose encoding has no fixed length; then
the values back to back. It is read here by a few lines of our own, because a training environment should not
need the package that wrote the data. The tests compare every encoding with what the stock writer writes.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from pipeline.errors import CorpusError

Decode = Callable[[bytes], Any]

_NUMBERS = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
# Codes by which an array says its own dtype and the width of its shape's numbers.
_CODES = (8, 16, 32, 64, 9, 17, 33, 65, 18, 34, 66)
_DTYPE_OF_CODE = dict(zip(_CODES, _NUMBERS, strict=True))


def record_decoder(columns: Mapping[str, str], *, allow_pickle: bool = False) -> Decode:
    """A function from the bytes of one record to a dict of its columns.

    Args:
        columns: MDS encoding of each column.
        allow_pickle: Unpickle `pkl` columns. Unpickling runs whatever code the data names.

    Raises:
        CorpusError: An encoding is unknown, needs a package that is missing, or is `pkl` without leave.
    """
    names = sorted(columns)
    decoders = [column_decoder(name, columns[name], allow_pickle=allow_pickle) for name in names]
    sizes = [fixed_size(columns[name]) for name in names]
    lengths_bytes = 4 * sizes.count(None)

    def decode(content: bytes) -> dict[str, Any]:
        lengths = iter(np.frombuffer(content, "<u4", count=lengths_bytes // 4).tolist())
        begin, record = lengths_bytes, {}
        for name, size, decoder in zip(names, sizes, decoders, strict=True):
            end = begin + (next(lengths) if size is None else size)
            record[name] = decoder(content[begin:end])
            begin = end
        if begin != len(content):
            raise ValueError(f"its columns take {begin:,} bytes of {len(content):,}")
        return record

    return decode


def column_decoder(name: str, encoding: str, *, allow_pickle: bool = False) -> Decode:
    """The function from the bytes of one value to the value; raises like `record_decoder`."""
    if encoding == "pkl":
        if not allow_pickle:
            raise CorpusError(
                f"the column {name!r} holds pickles (MDS encoding 'pkl'), and unpickling runs whatever code "
                "the data names. Write the column as json, ndarray or bytes; or, where you trust whoever "
                "wrote the data, say so with allow_pickle=True (--allow-pickle)."
            )
        import pickle

        return pickle.loads
    if encoding.startswith(("pil", "jpeg", "png", "list[")):
        _require_pillow(name, encoding)
    if encoding in _SIMPLE:
        return _SIMPLE[encoding]
    if encoding in _NUMBERS:
        return lambda content: np.frombuffer(content, _little(encoding))[0]
    if encoding.partition(":")[0] == "ndarray":
        return _array_decoder(*_parse_array(encoding))
    raise _unknown(encoding)


def fixed_size(encoding: str) -> int | None:
    """Length in bytes of every value of this encoding; None where values differ in length."""
    if encoding == "int":
        return 8
    if encoding in _NUMBERS:
        return np.dtype(encoding).itemsize
    if encoding.partition(":")[0] == "ndarray":
        dtype, shape = _parse_array(encoding)
        return None if dtype is None or shape is None else math.prod(shape) * dtype.itemsize
    return None


def token_array(encoding: str) -> tuple[str, int] | None:
    """dtype and length of a column of token blocks, `ndarray:uint16:256` or the like; None for others."""
    if encoding.partition(":")[0] != "ndarray":
        return None
    dtype, shape = _parse_array(encoding)
    if dtype is None or dtype.name not in ("uint16", "uint32") or shape is None or len(shape) != 1:
        return None
    return dtype.name, shape[0]


def _parse_array(encoding: str) -> tuple[np.dtype[Any] | None, tuple[int, ...] | None]:
    """Read `ndarray`, `ndarray:DTYPE` or `ndarray:DTYPE:N,N,...`."""
    _, *arguments = encoding.split(":")
    try:
        shape = tuple(int(part) for part in arguments[1].split(",")) if arguments[1:] else None
    except ValueError:
        raise _unknown(encoding) from None
    known = not arguments or arguments[0] in _NUMBERS
    if len(arguments) > 2 or not known or (shape is not None and min(shape) < 1):
        raise _unknown(encoding)
    return _little(arguments[0]) if arguments else None, shape


def _array_decoder(dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None) -> Decode:
    def decode(content: bytes) -> Any:
        begin, found, axes = 0, dtype, shape
        if found is None:
            found, begin = _little(_DTYPE_OF_CODE[content[0]]), 1
        if axes is None:
            num_axes, width = content[begin] >> 2, 1 << (content[begin] & 3)
            numbers = np.frombuffer(content, f"<u{width}", count=num_axes, offset=begin + 1)
            axes = tuple(numbers.tolist())
            begin += 1 + num_axes * width
        # A copy, so that the caller may write to it and torch takes it without a warning.
        return np.frombuffer(content, found, offset=begin).reshape(axes).copy()

    return decode


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _unknown(encoding: str) -> CorpusError:
    known = ", ".join([*_SIMPLE, *_NUMBERS, "ndarray[:dtype[:shape]]"])
    return CorpusError(
        f"the MDS encoding {encoding!r} is not known; this version reads {known}. "
        "Write the column in one of these."
    )


def _require_pillow(name: str, encoding: str) -> None:
    from importlib.util import find_spec

    if find_spec("PIL") is None:
        raise CorpusError(
            f"the column {name!r} holds images (MDS encoding {encoding!r}), which the package Pillow "
            "decodes. Install it: pip install pillow"
        )


def _image(content: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(content))


def _raw_image(content: bytes) -> Any:
    from PIL import Image

    width, height, mode_bytes = np.frombuffer(content, "<u4", count=3).tolist()
    pixels = 12 + mode_bytes
    return Image.frombytes(content[12:pixels].decode(), (width, height), content[pixels:])


def _list_of(decode: Decode, *, reserved_bytes: int) -> Decode:
    """A list: reserved bytes, number of items, their lengths (all uint32), the items."""

    def decode_list(content: bytes) -> list[Any]:
        count = int(np.frombuffer(content, "<u4", count=1, offset=reserved_bytes)[0])
        begin = reserved_bytes + 4 + 4 * count
        lengths = np.frombuffer(content, "<u4", count=count, offset=reserved_bytes + 4)
        bounds = [begin, *(begin + np.cumsum(lengths, dtype=np.int64)).tolist()]
        return [decode(content[bounds[i] : bounds[i + 1]]) for i in range(count)]

    return decode_list


_SIMPLE: dict[str, Decode] = {
    "bytes": bytes,
    "str": lambda content: content.decode("utf-8"),
    "int": lambda content: int(np.frombuffer(content, "<i8")[0]),
    "str_int": lambda content: int(content.decode("utf-8")),
    "str_float": lambda content: float(content.decode("utf-8")),
    "str_decimal": lambda content: Decimal(content.decode("utf-8")),
    "json": json.loads,
    "pil": _raw_image,
    "jpeg": _image,
    "png": _image,
    "jpeg_array": _list_of(_image, reserved_bytes=0),
    "jpegarray": _list_of(_image, reserved_bytes=0),
    "list[pil]": _list_of(_raw_image, reserved_bytes=4),
    "list[jpeg]": _list_of(_image, reserved_bytes=4),
    "list[png]": _list_of(_image, reserved_bytes=4),
}
