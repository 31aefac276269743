"""The order of the samples inside a domain: shuffled, and yet block after block.

Every pass over a domain shows each sample once, in an order of its own that is computed and never stored.
A plain permutation of a large domain would touch another block with every sample, and so fetch a megabyte
for a kilobyte. So the order has two levels, as a shuffle buffer has: the domain's blocks come in a random
order, and the samples are shuffled inside windows of a few of those blocks. A domain no larger than one
window is simply permuted.

In detail, for the domain's samples 0..n-1, seen as a ring that is cut into cells of one block each, with
the first whole block first (what is left of the ring, in the domain's two partial blocks, is a last and
smaller cell):

    rotate    z = (q + shift) mod n            q-th draw of the pass; no sample is last in every pass
    shuffle   y = z's window, permuted         windows of W cells
    reorder   cell c of y becomes cell π(c)    whole cells only

Each step is a bijection, and so is the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.counter_rng import random_bits
from pipeline.permute import permute
from pipeline.sampler import Ints

# Purposes that separate the uses of one seed (sampler.py has more). Changing one changes every stream.
_PASS, _SHIFT, _CELLS, _WINDOW = 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """The order of the samples inside each domain of a view."""

    seed: int
    offsets: Ints
    """Shape (k+1,): the view's offsets."""
    cell_samples: int
    """Samples in a block. Blocks should begin at multiples of it; where they do not, cells straddle them."""
    window_cells: int
    """Blocks that are shuffled together, at least 1."""

    def positions(self, domains: Ints, numbers: Ints) -> Ints:
        """Positions of draws: of `domains` (n,) the `numbers` (n,)-th sample ever drawn, from 0."""
        first = self.offsets[domains]
        sizes = self.offsets[domains + 1] - first
        passes, index = np.divmod(numbers, sizes)
        large = np.flatnonzero(sizes > self.cell_samples * self.window_cells)
        if not large.size:
            key = random_bits(self.seed, _PASS, domains, passes)
            return first + permute(index, sizes, key)
        found = np.empty_like(first)
        small = np.flatnonzero(sizes <= self.cell_samples * self.window_cells)
        key = random_bits(self.seed, _PASS, domains[small], passes[small])
        found[small] = first[small] + permute(index[small], sizes[small], key)
        found[large] = self._in_windows(
            domains[large], passes[large], index[large], first[large], sizes[large]
        )
        return found

    def _in_windows(
        self, domains: Ints, passes: Ints, index: Ints, first: Ints, sizes: Ints
    ) -> Ints:
        cell, window = self.cell_samples, self.cell_samples * self.window_cells
        shift = random_bits(self.seed, _SHIFT, domains, passes) % sizes.astype(np.uint64)
        rotated = index + shift.astype(np.int64)
        rotated -= sizes * (rotated >= sizes)
        number, inside = np.divmod(rotated, window)
        begin = number * window
        key = random_bits(self.seed, _WINDOW, domains, passes, number)
        shuffled = begin + permute(inside, np.minimum(window, sizes - begin), key)
        number, inside = np.divmod(shuffled, cell)
        whole = sizes // cell
        key = random_bits(self.seed, _CELLS, domains, passes)
        # The last, smaller cell stays where it is; its number is made valid for the permutation.
        moved = permute(np.minimum(number, whole - 1), whole, key)
        on_ring = np.where(number < whole, moved, number) * cell + inside
        on_ring += -first % cell
        on_ring -= sizes * (on_ring >= sizes)
        return first + on_ring
