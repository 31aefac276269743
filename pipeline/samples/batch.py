"""What the stream hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from torch.utils.data._utils.collate import default_collate_fn_map

from pipeline.errors import StateError


@dataclass(frozen=True, slots=True)
class Batch:
    """This rank's part of one global batch of n · world_size samples. The memory is the caller's."""

    step: int
    """Index of the global batch, from 0."""
    samples: Any
    """The samples: an array (n, tokens_per_sample), uint16 or uint32, for a token corpus; for a corpus of
    records, or where the stream has a transform, a list of n."""
    domains: NDArray[np.int64]
    """Shape (n,): the domain of the view that each sample was drawn for."""
    positions: NDArray[np.int64]
    """Shape (n,): position of each sample in the corpus."""

    @property
    def tokens(self) -> NDArray[Any]:
        """The samples of a token corpus: (n, tokens_per_sample)."""
        if not isinstance(self.samples, np.ndarray):
            raise TypeError("these samples are no token blocks; use batch.samples.")
        return self.samples


def _collated(*args: object, **options: object) -> NoReturn:
    """What torch's default collation does with batches: DataLoader(stream) asks for it, of one or more."""
    raise StateError(
        "a stream makes its own batches, and a DataLoader that collects them makes batches of batches: pass "
        "batch_size=None to the DataLoader, and the number of samples to the stream."
    )


default_collate_fn_map[Batch] = _collated
