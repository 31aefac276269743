"""Where the samples of each domain lie: one range of positions in every segment of the corpus.

The first build writes one segment, and each `braidstream add` appends another. Inside a segment samples lie
in leaf order, so a domain, which is a range of leaves, is one range of positions there; its samples are those
of all its ranges, one segment after the other. Most corpora have a single segment, and that costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DomainRanges:
    """The positions of k domains in S segments."""

    bounds: Ints
    """Shape (S, k+1): in segment s domain i holds the positions bounds[s, i] .. bounds[s, i+1]-1."""
    sizes: Ints = field(init=False)
    """Samples per domain, shape (k,)."""

    def __post_init__(self) -> None:
        sizes = np.diff(self.bounds).sum(axis=0)
        for array in (self.bounds, sizes):
            array.setflags(write=False)
        object.__setattr__(self, "sizes", sizes)

    @property
    def num_segments(self) -> int:
        """How many segments the samples lie in."""
        return len(self.bounds)

    @property
    def k(self) -> int:
        """Number of domains."""
        return len(self.sizes)

    def merged(self, edges: Ints) -> DomainRanges:
        """The ranges of coarser domains, each edges[i] .. edges[i+1]-1 of these; `edges` is (m+1,)."""
        return DomainRanges(self.bounds[:, edges])

    def positions(self, domains: Ints, index: Ints) -> Ints:
        """Position of the `index`-th sample of each of `domains`, from 0; arrays of shapes that broadcast."""
        if self.num_segments == 1:
            found: Ints = self.bounds[0][domains] + index
            return found
        domains, index = np.broadcast_arrays(domains, index)
        first, sizes = self._of(domains)
        return _picked(index, sizes, first)

    def positions_by_cell(self, domains: Ints, index: Ints, cell: int) -> Ints:
        """As `positions`, (n,) each, with every domain's whole cells first and what is left of it last.

        A cell is `cell` positions counted from the begin of a segment: one block. So the samples
        c·cell .. (c+1)·cell - 1 of a domain lie in one block, for as many c as it has whole blocks.
        """
        if self.num_segments == 1:
            first = self.bounds[0][domains]
            sizes = self.sizes[domains]
            turned = index + -first % cell
            turned -= sizes * (turned >= sizes)
            position: Ints = first + turned
            return position
        first, sizes = self._of(domains)
        begin = self.bounds[:, :1]
        head = np.minimum((begin - first) % cell, sizes)
        whole = (sizes - head) // cell * cell
        tail = sizes - head - whole
        # What is left of a range is its tail, then its head: with one segment, the ring above.
        pieces = np.stack([tail, head], axis=1).reshape(-1, len(domains))
        starts = np.stack([first + head + whole, first], axis=1).reshape(-1, len(domains))
        return _picked(
            index, np.concatenate([whole, pieces]), np.concatenate([first + head, starts])
        )

    def domains_at(self, positions: Ints) -> Ints:
        """The domain of the sample at each of `positions`; same shape."""
        begins = self.bounds[:, :-1].ravel()
        return (begins.searchsorted(positions, side="right") - 1) % self.k

    def _of(self, domains: Ints) -> tuple[Ints, Ints]:
        """First position and size of each domain's range in every segment: (S, ...) each."""
        first = self.bounds[:, domains]
        return first, self.bounds[:, domains + 1] - first


def _picked(index: Ints, sizes: Ints, starts: Ints) -> Ints:
    """The `index`-th element (...) of ranges that follow each other: sizes, starts (pieces, ...)."""
    ends = sizes.cumsum(axis=0)
    piece = (ends <= index).sum(axis=0)[None]
    begin = np.take_along_axis(ends - sizes, piece, axis=0)[0]
    found: Ints = np.take_along_axis(starts, piece, axis=0)[0] + index - begin
    return found
