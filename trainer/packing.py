"""Arrays as short text, to the last bit: for records and states that are JSON."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray


def pack_floats(values: NDArray[np.float64]) -> str:
    """float64 (n,) as base64 of zlib of little-endian bytes."""
    return base64.b64encode(zlib.compress(values.astype("<f8").tobytes(), level=1)).decode("ascii")


def unpack_floats(text: str) -> NDArray[np.float64]:
    """What `pack_floats` was given."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f8").astype(np.float64)
