"""The order of the samples inside a domain: shuffled, and yet block after block.

Every pass over a domain shows each sample once, in an order of its own that is computed and never stored.
A plain permutation of a large domain would touch another block with every sample, and so fetch a megabyte
for a kilobyte. So the order has two levels, as a shuffle buffer has: the domain's blocks come in a random
order, and the samples are shuffled inside windows of a few of those blocks. A domain no larger than one
window is simply permuted.

In detail, for the domain's samples 0..n-1, numbered so that cells of one block each come first (what is left,
in the partial blocks at the ends of the domain's ranges, is joined to more cells and a last, smaller one):

    rotate    z = (q + shift) mod n            q-th draw of the pass; no sample is last in every pass
    shuffle   y = z's window, permuted         windows of W cells
    reorder   cell c of y becomes cell π(c)    whole cells only

Each step is a bijection, and so is the whole. Cells of all segments of a corpus are reordered together, so
what was added later is mixed into each pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.view import View
from pipeline.storage.ranges import DomainRanges
from pipeline.stream.counter_rng import mixed, random_bits
from pipeline.stream.permute import permute
from pipeline.stream.sampler import Ints

if TYPE_CHECKING:
    from pipeline.corpus.corpus import Corpus

# Purpose that separates the uses of one seed (sampler.py has more). Changing it changes every stream.
_PASS = 3


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """The order of the samples inside each domain of a view."""

    seed: int
    ranges: DomainRanges
    """Where the domains' samples lie."""
    cell_samples: int
    """Samples in a block. Blocks should begin at multiples of it, counted from the begin of their segment;
    where they do not, cells straddle them."""
    window_cells: int
    """Blocks that are shuffled together, at least 1."""

    @staticmethod
    def of(corpus: Corpus, view: View, *, seed: int, shuffle_bytes: int) -> SampleOrder:
        """The order for `view`, with `shuffle_bytes` bytes in the windows of all its domains together."""
        block_bytes = corpus.manifest.blocks.block_bytes
        data_bytes = sum(shard.data_bytes for shard in corpus.manifest.shards)
        return SampleOrder(
            seed=seed,
            ranges=view.ranges,
            cell_samples=max(1, round(block_bytes * corpus.num_samples / data_bytes)),
            window_cells=max(1, shuffle_bytes // (block_bytes * view.k)),
        )

    @property
    def working_set(self) -> int:
        """Blocks that all domains together have in hand at a time: what a cache should hold."""
        cells = -(-np.diff(self.ranges.bounds) // self.cell_samples)
        return int(
            np.minimum(cells.sum(axis=0), self.window_cells + self.ranges.num_segments).sum()
        )

    def positions(self, domains: Ints, numbers: Ints) -> Ints:
        """Positions of draws: of `domains` (n,) the `numbers` (n,)-th sample ever drawn, from 0."""
        sizes = self.ranges.sizes[domains]
        passes, index = np.divmod(numbers, sizes)
        keys = random_bits(self.seed, _PASS, domains, passes)
        is_large = sizes > self.cell_samples * self.window_cells
        if not is_large.any():
            return self._at_will(keys, index, domains, sizes)
        if is_large.all():
            return self._in_windows(keys, index, domains, sizes)
        found = np.empty_like(index)
        for part, positions in ((~is_large, self._at_will), (is_large, self._in_windows)):
            found[part] = positions(keys[part], index[part], domains[part], sizes[part])
        return found

    def _at_will(self, keys: NDArray[np.uint64], index: Ints, domains: Ints, sizes: Ints) -> Ints:
        return self.ranges.positions(domains, permute(index, sizes, keys))

    def _in_windows(
        self, keys: NDArray[np.uint64], index: Ints, domains: Ints, sizes: Ints
    ) -> Ints:
        cell, window = self.cell_samples, self.cell_samples * self.window_cells
        rotated = index + (keys % sizes.astype(np.uint64)).astype(np.int64)
        rotated -= sizes * (rotated >= sizes)
        number, inside = np.divmod(rotated, window)
        begin = number * window
        window_keys = mixed(keys ^ number.astype(np.uint64))
        shuffled = begin + permute(inside, np.minimum(window, sizes - begin), window_keys)
        number, inside = np.divmod(shuffled, cell)
        whole = sizes // cell
        # The last, smaller cell stays where it is; its number is made valid for the permutation.
        moved = permute(np.minimum(number, whole - 1), whole, keys)
        by_cell = np.where(number < whole, moved, number) * cell + inside
        return self.ranges.positions_by_cell(domains, by_cell, cell)
