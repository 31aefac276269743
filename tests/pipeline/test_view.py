from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Corpus, CorpusError, View
from pipeline.corpus.view import DomainTree
from pipeline.storage.ranges import DomainRanges


@st.composite
def trees(draw: st.DrawFn) -> DomainTree:
    """Trees of 1 to 40 leaves, some empty, with any split order, over 1 to 4 segments."""
    leaves = draw(st.integers(1, 40))
    sizes = draw(
        st.lists(
            st.lists(st.integers(0, 9), min_size=leaves, max_size=leaves), min_size=1, max_size=4
        )
    )
    order = draw(st.permutations(range(1, leaves)))
    middle = draw(st.lists(st.integers(1, leaves), max_size=3))
    return DomainTree(
        corpus_fingerprint="f",
        levels=(1, *sorted(middle), leaves),
        leaves=ranges(sizes),
        split_order=np.array(order, dtype=np.int64),
    )


def ranges(sizes: Sequence[Sequence[int]]) -> DomainRanges:
    """Leaves of these sizes: per segment, one after the other."""
    ends = np.cumsum(np.ravel(sizes)).reshape(np.shape(sizes))
    begins = np.concatenate([[0], ends[:-1, -1]])
    return DomainRanges(np.concatenate([begins[:, None], ends], axis=1))


def members(view: View, domain: int) -> list[int]:
    """The positions of a domain."""
    return view.positions(np.array(domain), np.arange(view.sizes[domain])).tolist()


@given(trees())
def test_domains_of_every_view_are_disjoint_and_complete(tree: DomainTree) -> None:
    for k in range(1, tree.num_leaves + 1):
        view = tree.view(k=k)
        assert view.k == k
        assert (np.diff(view.leaf_bounds) > 0).all()
        assert np.array_equal(view.ranges.bounds, tree.leaves.bounds[:, view.leaf_bounds])
        owned = [members(view, domain) for domain in range(k)]
        assert sorted(chain.from_iterable(owned)) == list(range(view.num_samples))
        for domain, positions in enumerate(owned):
            assert (view.domains_at(np.array(positions, dtype=np.int64)) == domain).all()


@given(trees())
def test_every_view_refines_the_coarser_ones(tree: DomainTree) -> None:
    views = [tree.view(k=k) for k in range(1, tree.num_leaves + 1)]
    for coarse, fine in pairwise(views):
        assert set(coarse.leaf_bounds.tolist()) < set(fine.leaf_bounds.tolist())
        parent = fine.parents_in(coarse)
        assert np.array_equal(np.bincount(parent, fine.sizes, coarse.k), coarse.sizes)
        positions = np.arange(fine.num_samples)
        assert np.array_equal(parent[fine.domains_at(positions)], coarse.domains_at(positions))


@given(trees())
def test_a_level_is_the_view_of_its_number_of_domains(tree: DomainTree) -> None:
    for level, k in enumerate(tree.levels):
        assert tree.view(level=level) == tree.view(k=k)
        assert np.array_equal(tree.view(level=level).ranges.bounds, tree.view(k=k).ranges.bounds)


@given(trees())
def test_leaf_values_sum_over_domains(tree: DomainTree) -> None:
    values = np.arange(1.0, tree.num_leaves + 1)
    for k in (1, tree.num_leaves):
        assert tree.view(k=k).sum_leaves(values).sum() == values.sum()
    assert np.array_equal(tree.view(k=tree.num_leaves).sum_leaves(values), values)


def test_what_cannot_be_had_is_refused_with_what_can(numbered_corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="k=25 domains cannot be had: choose 1 to 24"):
        numbered_corpus.domains(k=25)
    with pytest.raises(CorpusError, match="levels 0 to 2 with 1, 6, 24 domains"):
        numbered_corpus.domains(level=3)
    with pytest.raises(CorpusError, match="either level=… or k=…"):
        numbered_corpus.domains()
    with pytest.raises(ValueError, match="24 leaves"):
        numbered_corpus.domains(k=3).sum_leaves(np.zeros(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leaves": DomainRanges(np.array([[0, 5, 3]]))}, "do not rise"),
        ({"split_order": np.array([2])}, "no permutation"),
        ({"levels": (1, 3)}, "must rise from 1"),
    ],
)
def test_a_damaged_tree_is_refused(change: dict[str, object], message: str) -> None:
    good = {
        "corpus_fingerprint": "f",
        "levels": (1, 2),
        "leaves": DomainRanges(np.array([[0, 3, 5]])),
        "split_order": np.array([1]),
    }
    with pytest.raises(CorpusError, match=message):
        DomainTree(**{**good, **change})
