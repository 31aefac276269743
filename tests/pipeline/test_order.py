from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.storage.ranges import DomainRanges
from pipeline.stream.order import SampleOrder
from tests.pipeline.test_view import ranges


def order(
    sizes: list[int], *, cell: int = 10, window: int = 2, seed: int = 0, first: int = 0
) -> SampleOrder:
    bounds = first + np.cumsum([[0, *sizes]], axis=1)
    return SampleOrder(seed, DomainRanges(bounds), cell_samples=cell, window_cells=window)


def one_pass(order: SampleOrder, domain: int = 0, number: int = 0) -> np.ndarray:
    size = int(order.ranges.sizes[domain])
    return order.positions(np.full(size, domain), number * size + np.arange(size))


@given(
    size=st.integers(1, 400),
    cell=st.integers(1, 40),
    window=st.integers(1, 6),
    first=st.integers(0, 50),
    number=st.integers(0, 5),
)
def test_every_pass_shows_every_sample_once(
    size: int, cell: int, window: int, first: int, number: int
) -> None:
    seen = one_pass(order([size], cell=cell, window=window, first=first), number=number)
    assert np.array_equal(np.sort(seen), first + np.arange(size))


def test_passes_seeds_and_domains_have_orders_of_their_own() -> None:
    both = order([500, 500])
    orders = [
        one_pass(both),
        one_pass(both, number=1),
        one_pass(order([500, 500], seed=1)),
        one_pass(both, domain=1) - 500,
    ]
    assert len({tuple(each) for each in orders}) == 4


@given(first=st.integers(0, 30))
def test_blocks_come_one_after_the_other(first: int) -> None:
    """At any time a pass has touched hardly more blocks than it needed for what it has read."""
    cell, window, cells = 10, 3, 40
    seen = one_pass(order([cell * cells], cell=cell, window=window, first=first)) // cell
    for count in range(0, len(seen), cell):
        # A window's blocks, those of the window it began in the middle of, and two partial blocks.
        assert len(np.unique(seen[:count])) <= count / cell + 2 * window + 2


def test_a_domain_of_one_window_is_permuted_freely() -> None:
    whole = order([40], cell=10, window=4)
    followers = [np.diff(one_pass(whole, number=number)) for number in range(200)]
    assert (np.abs(np.concatenate(followers)) > 10).mean() > 0.4


def test_every_sample_comes_everywhere_equally_often() -> None:
    passes, size = 6000, 47  # four whole cells and a smaller one, two cells to a window
    domains = np.zeros(passes, dtype=np.int64)
    for place in (0, 20, 46):
        shown = order([size]).positions(domains, np.arange(passes) * size + place)
        assert chisquare(np.bincount(shown, minlength=size)).pvalue > 1e-4


def test_large_and_small_domains_do_not_disturb_each_other() -> None:
    mixed = order([7, 300, 20, 21])
    domains = np.array([1, 0, 3, 2, 1, 3, 0])
    numbers = np.array([5, 0, 20, 3, 299, 44, 9])
    together = mixed.positions(domains, numbers)
    alone = [mixed.positions(domains[i : i + 1], numbers[i : i + 1])[0] for i in range(7)]
    assert together.tolist() == alone


@given(
    sizes=st.lists(st.tuples(*[st.integers(0, 150)] * 3), min_size=1, max_size=4),
    cell=st.integers(1, 40),
    window=st.integers(1, 6),
    number=st.integers(0, 5),
)
def test_every_pass_shows_every_sample_of_all_segments_once(
    sizes: list[tuple[int, int, int]], cell: int, window: int, number: int
) -> None:
    domains = ranges(sizes)
    order = SampleOrder(0, domains, cell_samples=cell, window_cells=window)
    for domain in np.flatnonzero(domains.sizes):
        seen = one_pass(order, domain=domain, number=number)
        owned = domains.positions(domain, np.arange(domains.sizes[domain]))
        assert np.array_equal(np.sort(seen), owned)


@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    cell=st.integers(1, 40),
    window=st.integers(1, 6),
)
def test_a_segment_without_samples_of_a_domain_changes_nothing_for_it(
    sizes: list[int], cell: int, window: int
) -> None:
    alone = SampleOrder(0, ranges([sizes]), cell_samples=cell, window_cells=window)
    nothing = [0] * len(sizes)
    among = SampleOrder(0, ranges([sizes, nothing]), cell_samples=cell, window_cells=window)
    for domain in range(len(sizes)):
        assert np.array_equal(one_pass(alone, domain), one_pass(among, domain))


def test_no_segment_is_exhausted_before_another() -> None:
    cell, first, second = 10, 3000, 1500
    order = SampleOrder(0, ranges([[7, first], [4, second]]), cell_samples=cell, window_cells=3)
    seen = one_pass(order, domain=1)
    of_second = order.ranges.bounds[1, 0] <= seen
    for part in np.array_split(of_second, 5):
        assert 0.2 < part.mean() < 0.47
    # And block after block, also where a segment begins in the middle of what would be a block.
    block = (seen - np.where(of_second, order.ranges.bounds[1, 0], 0)) // cell + 10_000 * of_second
    for count in range(0, len(seen), cell):
        assert len(np.unique(block[:count])) <= count / cell + 2 * 3 + 4
