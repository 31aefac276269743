"""Arrays as short text, to the last bit: for states and records that are JSON."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(values: NDArray[Any]) -> str:
    """An array (n,) as base64 of zlib of its little-endian bytes."""
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little_endian.tobytes(), level=1)).decode("ascii")


def unpacked(text: str, dtype: type[np.generic]) -> NDArray[Any]:
    """What `packed` was given, an array of `dtype`."""
    little_endian = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), little_endian).astype(dtype)
