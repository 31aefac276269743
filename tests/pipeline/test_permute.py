from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.stream.counter_rng import random_bits, random_uniform
from pipeline.stream.permute import permute


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_is_a_bijection_for_every_size_and_key(size: int, key: int) -> None:
    image = permute(np.arange(size), np.full(size, size), np.full(size, key, dtype=np.uint64))
    assert np.array_equal(np.sort(image), np.arange(size))


def test_elements_of_different_domains_do_not_disturb_each_other() -> None:
    sizes = np.array([1, 2, 3, 10, 1000, 123_456_789])
    keys = random_bits(0, 0, np.arange(6))
    index = sizes - 1
    together = permute(index, sizes, keys)
    alone = [permute(index[i : i + 1], sizes[i : i + 1], keys[i : i + 1])[0] for i in range(6)]
    assert together.tolist() == alone
    assert (together < sizes).all()


@pytest.mark.parametrize("size", [2, 3, 5, 7, 64, 100])
def test_every_index_lands_everywhere_equally_often(size: int) -> None:
    keys = random_bits(1, 2, np.arange(20_000))
    for index in (0, size // 2, size - 1):
        image = permute(np.full(len(keys), index), np.full(len(keys), size), keys)
        assert chisquare(np.bincount(image, minlength=size)).pvalue > 1e-4


def test_all_orders_of_four_appear() -> None:
    keys = np.repeat(random_bits(3, 0, np.arange(5000)), 4)
    image = permute(np.tile(np.arange(4), 5000), np.full(20_000, 4), keys).reshape(-1, 4)
    orders, counts = np.unique(image, axis=0, return_counts=True)
    assert len(orders) == 24
    assert counts.max() < 2 * counts.mean()


def test_random_bits_depend_on_seed_purpose_and_each_counter() -> None:
    base = random_bits(0, 1, 2, 3)
    for other in (random_bits(1, 1, 2, 3), random_bits(0, 2, 2, 3), random_bits(0, 1, 3, 2)):
        assert base != other
    assert random_bits(0, 1, np.arange(5), 3)[2] == base


def test_random_uniform_is_uniform_over_consecutive_counters() -> None:
    values = random_uniform(0, 1, np.arange(100_000))
    assert values.min() >= 0
    assert values.max() < 1
    assert chisquare(np.histogram(values, bins=100, range=(0, 1))[0]).pvalue > 1e-4
