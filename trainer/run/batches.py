"""Token arrays to tensors: fixed shapes, copied without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(tokens: NDArray[Any], device: torch.device) -> Tensor:
    """Token blocks as int64 on `device`; onto a GPU the copy runs beside the computation."""
    tensor = torch.from_numpy(tokens.astype(np.int64))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def micro_batches(
    tokens: NDArray[Any], *, size: int, pad_id: int, device: torch.device, at_least: int = 0
) -> Iterator[tuple[Tensor, slice]]:
    """Cut tokens (n, length) into tensors (size, length) with the rows that each of them holds.

    The last one is filled up with rows of padding, which count for nothing: a compiled model then sees
    one shape only. Batches of nothing but padding make up the number to `at_least`, for processes that have
    to take as many passes as the others.
    """
    for number in range(max(-(-len(tokens) // size), at_least)):
        start = number * size
        rows = tokens[start : start + size]
        missing = size - len(rows)
        if missing:
            rows = np.pad(rows, ((0, missing), (0, 0)), constant_values=pad_id)
        yield to_device(rows, device), slice(start, start + size - missing)
