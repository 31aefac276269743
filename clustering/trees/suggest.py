"""How many domains to start from: what a sample of vectors and the number of tokens say.

Two trees are fitted, each on one half of a sample, and a third set of vectors goes down both. For every k, as
a view of those trees:

    stability    adjusted Rand index (Hubert and Arabie 1985) between the domains that the two trees give to
                 the third set: 1 when both draw the same lines, 0 when they agree by chance
    explained    share of the variance of the third set that lies between domains
    passes       how often a domain repeats when a mixture gives half of the training tokens to four
                 domains of median size, as one that is steered to a narrow target may
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clustering.errors import BuildError
from clustering.trees.descent import NumpyDescent, as_float32
from clustering.trees.tree_fit import FittedSample, fit_sample

HELDOUT_SHARE = 0.1
ROWS_PER_LEAF = 16
"""Of each half of the sample, at least: below, a leaf is an accident of the sample."""
WIDEST = 64
MIN_SPLIT = 32
STABLE = 0.5
"""From here on, more than half of what two trees say beyond chance is the same."""
WORTHWHILE = 0.01
"""Share of the variance that twice as many domains must explain in addition."""
MAX_PASSES = 8
"""Repetition that paced budgets bore well (docs/results.md)."""
FAVORED_DOMAINS, FAVORED_SHARE = 4, 0.5
MIN_VECTORS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Granularity:
    """What is known about one number of domains."""

    k: int
    stability: float
    explained: float
    tokens: int | None
    """Of the domain of median size; None when the corpus' tokens are not known."""
    passes: float | None
    """Over it, when half of the training tokens go to four such domains."""

    @property
    def repeats_too_much(self) -> bool:
        """Whether a domain would be repeated more often than is good."""
        return self.passes is not None and self.passes > MAX_PASSES


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """The table, one row of it, and why."""

    rows: tuple[Granularity, ...]
    k: int
    branching: tuple[int, ...]
    """What to build with: the smallest tree that has this view."""
    reason: str


def survey(
    vectors: NDArray[np.float16],
    *,
    corpus_tokens: int | None,
    train_tokens: int | None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda vectors: None,
) -> tuple[Granularity, ...]:
    """Measure every k = 2, 4, 8, ... that the sample can tell apart.

    Args:
        vectors: float16 (n, dim), unit norm: a random sample of the corpus.
        corpus_tokens: Tokens of the corpus, if known.
        train_tokens: Tokens of the training run; by default as many as the corpus has.
        seed: Decides the halves and the fits.
        advance: Called with the vectors placed since the last call, of `fitted_vectors` in all.

    Raises:
        BuildError: There are too few vectors, or they are all but equal.
    """
    if len(vectors) < MIN_VECTORS:
        raise BuildError(
            f"{len(vectors):,} vectors are too few to compare granularities; it takes {MIN_VECTORS:,}. "
            "With so little text, build with --branching 8 and look at it."
        )
    order = np.random.default_rng(seed).permutation(len(vectors))
    num_heldout = int(HELDOUT_SHARE * len(vectors))
    heldout = as_float32(vectors[order[:num_heldout]])
    halves = [np.sort(half) for half in np.array_split(order[num_heldout:], 2)]
    branching = _branching(len(halves[0]))
    fits = [
        fit_sample(
            vectors[half],
            branching=branching,
            min_split=MIN_SPLIT,
            max_share=None,
            seed=seed,
            advance=advance,
        )
        for half in halves
    ]
    leaves = [NumpyDescent(fit.tree.centroids, fit.tree.parents)(heldout)[0] for fit in fits]
    most = min(fit.tree.num_leaves for fit in fits)
    if most < 2:
        raise BuildError(
            f"the {len(vectors):,} vectors are all but equal: no two domains of them can be told apart. Look "
            "at the texts: documents that begin alike are embedded alike."
        )
    own = as_float32(vectors[halves[0]])
    return tuple(
        _measure(k, fits, leaves, own, heldout, corpus_tokens, train_tokens or corpus_tokens)
        for k in _powers_of_two(most)
    )


def fitted_vectors(num_vectors: int) -> int:
    """How many vectors `survey` places, for progress: the halves once per level."""
    rest = num_vectors - int(HELDOUT_SHARE * num_vectors)
    return rest * len(_branching(rest // 2))


def suggest(rows: tuple[Granularity, ...]) -> Suggestion:
    """Recommend the most domains that are stable, tell something new, and need not repeat too much.

    Stability is no steady curve: a corpus of 64 kinds has 64 stable domains and 8 arbitrary ones.
    """
    sound = [
        number
        for number, row in enumerate(rows)
        if row.stability >= STABLE
        and not row.repeats_too_much
        and (number == 0 or row.explained - rows[number - 1].explained >= WORTHWHILE)
    ]
    best = sound[-1] if sound else max(range(len(rows)), key=lambda at: rows[at].stability)
    chosen = rows[best]
    tokens = "" if chosen.tokens is None else f" and {chosen.tokens:,} tokens in the median domain"
    limit = (
        _objection(chosen, rows[best + 1 :][:1])
        if sound
        else "no number of domains passes all tests"
    )
    return Suggestion(
        rows=rows,
        k=chosen.k,
        branching=_tree_for(chosen.k),
        reason=f"{chosen.k:,} domains explain {chosen.explained:.0%} of the variance at a stability of "
        f"{chosen.stability:.2f}{tokens}; {limit}.",
    )


def _objection(chosen: Granularity, following: tuple[Granularity, ...]) -> str:
    """Why not twice as many."""
    if not following:
        return "a sample of this size cannot tell more apart"
    (row,) = following
    if row.repeats_too_much:
        return (
            f"with {row.k:,}, half of the training tokens in {FAVORED_DOMAINS} median domains would mean "
            f"{row.passes:.1f} passes over them, more than {MAX_PASSES}"
        )
    if row.stability < STABLE:
        return (
            f"with {row.k:,}, another sample of the corpus would give other domains (stability "
            f"{row.stability:.2f}, below {STABLE:g})"
        )
    return f"{row.k:,} would explain only {row.explained - chosen.explained:.1%} more"


def _measure(
    k: int,
    fits: list[FittedSample],
    leaves: list[NDArray[np.int64]],
    own: NDArray[np.float32],
    heldout: NDArray[np.float32],
    corpus_tokens: int | None,
    train_tokens: int | None,
) -> Granularity:
    from sklearn.metrics import adjusted_rand_score

    cuts = [np.sort(fit.tree.split_order[: k - 1]) for fit in fits]
    first, second = (
        np.searchsorted(cut, leaf, side="right") for cut, leaf in zip(cuts, leaves, strict=True)
    )
    members = np.searchsorted(cuts[0], fits[0].leaf, side="right")
    sizes = np.bincount(members, minlength=k)
    order = np.argsort(members, kind="stable")
    sums = np.add.reduceat(own[order], np.concatenate([[0], np.cumsum(sizes)[:-1]]), axis=0)
    within = ((heldout - (sums / sizes[:, None])[first]) ** 2).sum(axis=1).mean()
    total = ((heldout - heldout.mean(axis=0)) ** 2).sum(axis=1).mean()
    tokens = passes = None
    if corpus_tokens is not None and train_tokens is not None:
        tokens = round(corpus_tokens * float(np.median(sizes)) / len(own))
        passes = FAVORED_SHARE * train_tokens / max(1, min(FAVORED_DOMAINS, k) * tokens)
    return Granularity(
        k=k,
        stability=float(adjusted_rand_score(first, second)),
        explained=float(1 - within / total),
        tokens=tokens,
        passes=passes,
    )


def _branching(half: int) -> tuple[int, ...]:
    """The largest tree whose leaves a half of the sample can fill."""
    leaves = half // ROWS_PER_LEAF
    if leaves <= WIDEST:
        return (max(2, leaves),)
    return (WIDEST, max(2, min(WIDEST, leaves // WIDEST)))


def _tree_for(k: int) -> tuple[int, ...]:
    """Branching of the smallest tree of levels of 64 that has k leaves: 64, or 64,64, ..."""
    branching = [WIDEST]
    while np.prod(branching) < k:
        branching.append(WIDEST)
    return tuple(branching)


def _powers_of_two(most: int) -> Iterator[int]:
    k = 2
    while k <= most:
        yield k
        k *= 2
