"""Scores kept per leaf: read at any granularity, forgotten in time, and at work in steered runs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import Corpus, open_corpus
from tests.trainer.ranks import become_rank, free_port, start_ranks
from tests.trainer.test_run import assert_same_run, only_the_rest_of, power_cut_at, records
from tests.trainer.test_steering import make_model
from trainer import SteeringConfig, TrainConfig, train
from trainer.alignment.alignment import AlignmentSampler
from trainer.alignment.alignment_source import AlignmentError
from trainer.alignment.leaf_alignment import LeafAlignment, nested_views
from trainer.alignment.leaf_scores import LeafScores
from trainer.model import TokenLoss
from trainer.run.batches import to_device
from trainer.run.config import ConfigError
from trainer.run.distributed import Ranks, joined_ranks
from trainer.steering import Steering, check_callback_can_steer

pytestmark = pytest.mark.usefixtures("tiny_preset")

CPU = torch.device("cpu")


@pytest.fixture
def observed(numbered_corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Positions all over the corpus and a score for each."""
    rng = np.random.default_rng(0)
    positions = rng.integers(0, numbered_corpus.num_samples, 200)
    return positions, rng.normal(size=200)


def test_one_run_has_the_means_of_every_granularity(
    numbered_corpus: Corpus, observed: tuple[np.ndarray, np.ndarray]
) -> None:
    positions, scores = observed
    kept = LeafScores(numbered_corpus.domains(k=numbered_corpus.num_leaves), half_life=10)
    kept.add(5, positions[:120], scores[:120])
    kept.add(5, positions[120:], scores[120:])
    for k in range(1, numbered_corpus.num_leaves + 1):
        view = numbered_corpus.domains(k=k)
        domain = view.domains_at(positions)
        for i in range(k):
            of = scores[domain == i]
            expected = of.mean() if len(of) else scores.mean()
            assert kept.means(view)[i] == pytest.approx(expected)


def test_after_a_half_life_an_observation_counts_half(numbered_corpus: Corpus) -> None:
    leaves = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    kept = LeafScores(leaves, half_life=10)
    place = leaves.positions(np.flatnonzero(leaves.sizes)[:1], np.array([0]))
    kept.add(0, place, np.array([1.0]))
    kept.add(10, place, np.array([4.0]))
    kept.add(30, place, np.array([2.0]))
    evidence = kept.evidence
    leaf = int(np.flatnonzero(evidence.counts)[0])
    assert evidence.counts[leaf] == pytest.approx(1 / 8 + 1 / 4 + 1)
    mean = (1 / 8 + 4 / 4 + 2) / evidence.counts[leaf]
    assert evidence.means[leaf] == pytest.approx(mean)
    assert evidence.scatter[leaf] == pytest.approx(
        (1 - mean) ** 2 / 8 + (4 - mean) ** 2 / 4 + (2 - mean) ** 2
    )
    again = LeafScores(leaves, half_life=10)
    again.load_state_dict(json.loads(json.dumps(kept.state_dict())))
    for one in (kept, again):
        one.add(31, place, np.array([0.5]))
    np.testing.assert_array_equal(kept.sums, again.sums)


def test_what_has_faded_is_forgotten(numbered_corpus: Corpus) -> None:
    leaves = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    kept = LeafScores(leaves, half_life=10.0)
    first, second = np.flatnonzero(leaves.sizes)[:2]
    places = leaves.positions(np.array([first, second]), np.array([0, 0]))
    kept.add(0, places, np.array([0.001, 0.001]))
    for step in range(1, 12_000):
        kept.add(step, places[1:], np.array([0.001]))
        if step % 1_000 == 0:
            np.testing.assert_allclose(kept.means(leaves)[[first, second]], 0.001, rtol=1e-6)
    assert kept.counts[first] == 0


def test_a_half_life_must_be_positive(numbered_corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="half_life=0"):
        LeafScores(numbered_corpus.domains(k=1), half_life=0)


def test_the_views_of_the_tree_are_nested_and_include_its_levels(corpus: Corpus) -> None:
    granularities = [view.k for view in nested_views(corpus)]
    assert granularities[0] == 1
    assert granularities[-1] == corpus.num_leaves
    assert granularities == sorted({*granularities, *corpus.levels})


def test_shrunk_scores_of_nested_domains_are_means_over_their_samples(
    numbered_corpus: Corpus, observed: tuple[np.ndarray, np.ndarray]
) -> None:
    fine, coarse = (
        numbered_corpus.domains(k=numbered_corpus.num_leaves),
        numbered_corpus.domains(k=3),
    )
    readings = {}
    for view in (fine, coarse):
        alignment = LeafAlignment(numbered_corpus, view, half_life=10, shrinkage="tree")
        alignment.observe(3, *observed)
        readings[view.k] = alignment.read()
        assert (readings[view.k][view.sizes == 0] == 0).all()
    sums = np.bincount(fine.parents_in(coarse), readings[fine.k] * fine.sizes, 3)
    np.testing.assert_allclose(readings[3], sums / coarse.sizes)


@pytest.mark.parametrize("shrinkage", ["none", "tree"])
def test_a_score_that_is_not_finite_spoils_one_reading_and_nothing_else(
    numbered_corpus: Corpus, observed: tuple[np.ndarray, np.ndarray], shrinkage: Any
) -> None:
    view = numbered_corpus.domains(k=4)
    alignment = LeafAlignment(numbered_corpus, view, half_life=10, shrinkage=shrinkage)
    assert (alignment.read() == 0).all(), "nothing is known yet"
    alignment.observe(3, *observed)
    before = alignment.read()
    alignment.observe(4, observed[0], np.where(observed[1] > 2, np.nan, observed[1]))
    assert np.isnan(alignment.read()).all()
    np.testing.assert_allclose(alignment.read(), before, atol=0.01)


def test_a_reading_before_the_first_observation_is_no_obstacle_to_the_next(
    numbered_corpus: Corpus, observed: tuple[np.ndarray, np.ndarray]
) -> None:
    readings = []
    for reads_early in (False, True):
        alignment = LeafAlignment(
            numbered_corpus, numbered_corpus.domains(k=4), half_life=10, shrinkage="tree"
        )
        if reads_early:
            alignment.read()
        alignment.observe(3, *observed)
        readings.append(alignment.read())
    np.testing.assert_array_equal(*readings)


@pytest.mark.parametrize("shrinkage", ["none", "tree"])
def test_steps_fill_two_halves_of_the_evidence_in_turn(
    numbered_corpus: Corpus, observed: tuple[np.ndarray, np.ndarray], shrinkage: Any
) -> None:
    view = numbered_corpus.domains(k=6)

    def alignment() -> LeafAlignment:
        return LeafAlignment(numbered_corpus, view, half_life=10, shrinkage=shrinkage)

    whole, stopped, of_steps = alignment(), alignment(), (alignment(), alignment())
    for step in range(1, 6):
        if step == 4:
            saved = json.dumps(stopped.state_dict())
            stopped = alignment()
            stopped.load_state_dict(json.loads(saved))
        for first in (40 * step - 40, 40 * step - 20):  # micro-batches of one step
            part = slice(first, first + 20)
            for one in (whole, stopped, of_steps[step % 2]):
                one.observe(step, observed[0][part], observed[1][part])
    assert np.isnan(whole.read_halves()).all() == (shrinkage == "tree"), (
        "before variances are known"
    )
    np.testing.assert_array_equal(whole.read(), stopped.read())
    halves = whole.read_halves()
    np.testing.assert_array_equal(halves, stopped.read_halves())
    if shrinkage == "none":
        odd_and_even = np.stack([of_steps[1].read(), of_steps[0].read()])
        np.testing.assert_allclose(halves, odd_and_even)


def test_a_half_knows_nothing_of_a_domain_that_it_has_not_seen(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=6)
    places = view.positions(np.array([0, 1, 2]), np.zeros(3, dtype=np.int64))
    of_histograms = LeafAlignment(
        numbered_corpus, view, half_life=10, shrinkage="none", basis=np.eye(6)[:2]
    )
    of_domains = LeafAlignment(numbered_corpus, view, half_life=10, shrinkage="none")
    for one in (of_domains, of_histograms):
        one.observe(1, places, np.array([1.0, 2.0, 3.0]))
        one.observe(2, places[:2], np.array([4.0, 5.0]))
    np.testing.assert_array_equal(
        of_domains.read_halves(),
        [[1, 2, 3, np.nan, np.nan, np.nan], [4, 5, np.nan, np.nan, np.nan, np.nan]],
    )
    np.testing.assert_array_equal(of_histograms.read_halves(), [[1, 2], [4, 5]])


def test_fewer_domains_per_draw_are_spread_over_the_tree(corpus: Corpus) -> None:
    sampler = AlignmentSampler(
        corpus=corpus,
        view=corpus.domains(k=12),
        target=corpus.target("alpha"),
        seed=1,
        domains_per_draw=4,
    )
    drawn = [sampler.draw(step).domains for step in range(20)]
    for domains in drawn:
        np.testing.assert_array_equal(domains // 3, np.arange(4))
    assert len(np.unique(drawn)) == 12, "in time all of them have their turn"


@pytest.mark.parametrize("count", [1, 5, 7, 8, 11])
def test_no_domain_is_drawn_twice_where_the_parts_are_unequal(corpus: Corpus, count: int) -> None:
    sampler = AlignmentSampler(
        corpus=corpus,
        view=corpus.domains(k=12),
        target=corpus.target("alpha"),
        seed=1,
        domains_per_draw=count,
    )
    drawn = [sampler.draw(step).domains for step in range(60)]
    for domains in drawn:
        assert len(domains) == count
        assert (np.diff(domains) > 0).all()
    assert len(np.unique(drawn)) == 12


SOURCES: dict[str, dict[str, Any]] = {
    "probe": {"estimator": "probe", "probe_every": 2},
    "probe, own observations": {"estimator": "probe", "probe_every": 2, "shrinkage": "none"},
    "difference, tree": {"shrinkage": "tree"},
    "difference, few": {"shrinkage": "tree", "measured_domains": 3},
}


@pytest.mark.parametrize("source", SOURCES)
def test_dga_moves_towards_the_target(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, source: str
) -> None:
    config = replace(config, k=6, update_every=3, half_life=12.0, **SOURCES[source])
    train(corpus, config, tmp_path / "run", quiet=True)
    last = np.array(records(tmp_path / "run", "mixture")[-1]["weights"])
    near = corpus.domains(k=6).sum_leaves(corpus.target("alpha").leaf_histogram) > 0
    assert last[near].sum() > 0.7


@pytest.mark.parametrize("source", SOURCES)
def test_a_killed_run_ends_with_the_same_bits(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, source: str
) -> None:
    config = replace(config, **SOURCES[source])
    train(corpus, config, tmp_path / "whole", quiet=True)
    for step in (9, 13, 20):
        with power_cut_at(step):
            train(corpus, config, tmp_path / "run", quiet=True)
    with only_the_rest_of(tmp_path / "run"):
        train(corpus, config, tmp_path / "run", quiet=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_the_probe_leaves_the_training_of_a_fixed_mixture_as_it_was(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, mixer="dga", step_size=0.0)
    for estimator in ("difference", "probe"):
        chosen = replace(config, estimator=estimator, probe_every=2)
        train(corpus, chosen, tmp_path / estimator, quiet=True)
    losses = [
        [record["train_loss"] for record in records(tmp_path / estimator, "train")]
        for estimator in ("difference", "probe")
    ]
    assert losses[0] == losses[1]


def test_a_compiled_run_is_scored_in_parts_and_learns_the_same(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    passes: list[int] = []

    def noted(tokens: np.ndarray, device: torch.device) -> torch.Tensor:
        passes.append(len(tokens))
        return to_device(tokens, device)

    monkeypatch.setattr("trainer.run.learner.to_device", noted)
    config = replace(config, estimator="probe", probe_every=8)
    train(corpus, replace(config, compile="off"), tmp_path / "plain", quiet=True)
    assert set(passes) == {8}
    passes.clear()
    train(corpus, replace(config, compile="on"), tmp_path / "compiled", quiet=True)
    scored = [2, 2, 2, 2]
    assert passes == [8] * 8 + scored + [8] * 7 + scored + [8] * 7
    plain, compiled = (
        [record["train_loss"] for record in records(tmp_path / name, "train")]
        for name in ("plain", "compiled")
    )
    assert compiled == pytest.approx(plain, abs=1e-3)
    last = [records(tmp_path / name, "mixture")[-1] for name in ("plain", "compiled")]
    np.testing.assert_allclose(last[0]["weights"], last[1]["weights"], atol=0.01)


def test_a_diverging_run_keeps_its_mixture_and_counts(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, learning_rate=1e30, clip_norm=1e30, warmup_steps=0)
    for name, source in SOURCES.items():
        result = train(corpus, replace(config, **source), tmp_path / name, quiet=True)
        assert result["skipped_updates"] == 3
        assert records(tmp_path / name, "mixture")[-1]["moved_total"] == 0


def _train_as_rank(rank: int, port: int, corpus_path: Path, config: TrainConfig, out: Path) -> None:
    become_rank(rank, 2, port)
    corpus = open_corpus(corpus_path)
    with joined_ranks(CPU) as ranks:
        for name, source in SOURCES.items():
            steering, loss = _steered(corpus, replace(config, **source), ranks)
            mixtures = _plain_loop(steering, loss, ranks)
            torch.save(torch.from_numpy(np.stack(mixtures)), out / f"{name}-{rank}.pt")


def _steered(corpus: Corpus, config: TrainConfig, ranks: Any) -> tuple[Steering, TokenLoss]:
    loss = make_model(corpus)
    steering = Steering(
        corpus,
        SteeringConfig(
            num_steps=12,
            batch_size=8,
            target="alpha",
            mixer="dga+update_every=3",
            k=6,
            sequences_per_domain=2,
            target_batch=16,
            measuring_batch=4,
            estimator=config.estimator,
            shrinkage=config.shrinkage,
            probe_every=config.probe_every,
            measured_domains=config.measured_domains,
        ),
        loss,
        ranks=ranks,
    )
    return steering, loss


def _plain_loop(steering: Steering, loss: TokenLoss, ranks: Any) -> list[np.ndarray]:
    """A loop that accumulates over two micro-batches and averages gradients over ranks by hand."""
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    mixtures = []
    for _ in range(12):
        batch = next(steering.stream)
        tokens, n = to_device(batch.tokens, CPU), len(batch.positions)
        for rows in (slice(0, n // 2), slice(n // 2, n)):
            with steering.watching(batch.step, batch.positions[rows], loss_scale=1 / n):
                (loss(tokens[rows]).sum() / n).backward()
        gradients = [p.grad for p in loss.parameters() if p.grad is not None]
        ranks.sum_tensors(gradients)
        torch._foreach_div_(gradients, ranks.world_size)
        optimizer.step()
        optimizer.zero_grad()
        steering.after_step(batch.step + 1)
        mixtures.append(steering.stream.mixture.probabilities)
    return mixtures


def test_ranks_agree_to_the_bit_and_with_one_process(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    start_ranks(_train_as_rank, free_port(), corpus.path, config, tmp_path, count=2)
    for name, source in SOURCES.items():
        first, second = (
            torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)
        )
        assert torch.equal(first, second)
        steering, loss = _steered(corpus, replace(config, **source), Ranks())
        alone = np.stack(_plain_loop(steering, loss, Ranks()))
        np.testing.assert_allclose(first.numpy(), alone, atol=0.02)
        assert np.abs(alone[-1] - alone[0]).max() > 0.05, "the mixture moved"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "probe", "gradients": "cosine"}, "estimator='exact'"),
        ({"estimator": "exact", "shrinkage": "tree"}, "single samples"),
        ({"measured_domains": 3}, "shrinkage='tree'"),
        ({"estimator": "probe", "mixer": "doge+toward=all+update_every=3"}, "toward='target'"),
    ],
)
def test_combinations_that_cannot_be_had_are_refused(
    corpus: Corpus, config: TrainConfig, settings: dict[str, Any], message: str
) -> None:
    given = {"num_steps": 9, "batch_size": 4, "target": "alpha", "mixer": "dga", "k": 6, **settings}
    steering = Steering(
        corpus, SteeringConfig(**given), make_model(corpus), learning_rate=lambda step: 1e-3
    )
    with pytest.raises(AlignmentError, match=message):
        steering.watching(0, np.zeros(4, dtype=np.int64)).__enter__()
    if "mixer" not in settings:
        with pytest.raises(ConfigError, match=message):
            replace(config, **settings)


def test_a_loop_that_never_lets_the_probe_watch_is_told_so(
    corpus: Corpus, config: TrainConfig
) -> None:
    steering, _ = _steered(corpus, replace(config, estimator="probe"), Ranks())
    with pytest.raises(ValueError, match=r"with steering\.watching"):
        steering.after_step(3)
    with pytest.raises(ValueError, match="does not show to callbacks"):
        check_callback_can_steer(steering)
