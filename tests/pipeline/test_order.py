from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.order import SampleOrder


def order(
    sizes: list[int], *, cell: int = 10, window: int = 2, seed: int = 0, first: int = 0
) -> SampleOrder:
    offsets = first + np.cumsum([0, *sizes])
    return SampleOrder(seed, offsets, cell_samples=cell, window_cells=window)


def one_pass(order: SampleOrder, domain: int = 0, number: int = 0) -> np.ndarray:
    size = int(order.offsets[domain + 1] - order.offsets[domain])
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
