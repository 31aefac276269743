"""Warnings: each condition when it begins, once, and the same ones after a stop."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import Corpus, Mixture, View, open_corpus
from tests.corpora import write_corpus
from tests.trainer.test_run import only_the_rest_of, power_cut_at, records
from tests.trainer.written_runs import write_run
from trainer import TrainConfig, train
from trainer.alignment.leaf_alignment import LeafAlignment, Shrinkage
from trainer.compare.compare import flags_between
from trainer.compare.grid import Cell
from trainer.health import Finding, Health, correlation
from trainer.health_thresholds import HealthThresholds
from trainer.report.names import DomainNames
from trainer.report.report import render_report
from trainer.results.results import read_run
from trainer.run.evaluation import Evaluation

pytestmark = pytest.mark.usefixtures("tiny_preset")

THRESHOLDS = HealthThresholds(still_updates=3, noise_updates=2)


@pytest.fixture
def view(corpus: Corpus) -> View:
    return corpus.domains(k=3)


@pytest.fixture
def health() -> Health:
    return Health(THRESHOLDS, target="alpha")


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def update(health: Health, view: View, moved: float = 0.1, skipped: int = 0) -> list[str]:
    """An update whose scores agree with the last ones and whose mixture moves by `moved`."""
    before = Mixture(view, np.array([0.4, 0.4, 0.2]))
    after = Mixture(view, np.array([0.4 - moved, 0.4 + moved, 0.2]))
    scores = np.array([1.0, 2.0, 3.0])
    return updated(health, before, after, scores, skipped)


def updated(
    health: Health,
    before: Mixture,
    after: Mixture,
    scores: NDArray[np.float64] | None,
    skipped: int = 0,
    halves: NDArray[np.float64] | None = None,
) -> list[str]:
    found = health.after_update(
        before=before,
        after=after,
        scores=scores,
        scored=before.view.sizes > 0,
        skipped_updates=skipped,
        halves=halves,
    )
    return kinds(found)


def evaluated(test: float, train: float | None, generic: float | None = None) -> Evaluation:
    return Evaluation(
        target_loss={"alpha": test, "beta": 9.0},
        target_train_loss={"alpha": train, "beta": 1.0},
        generic_loss=generic,
        seconds=0.0,
    )


def test_weights_that_do_not_move(health: Health, view: View) -> None:
    assert [update(health, view, moved) for moved in (0, 0, 0.1, 0, 0)] == [[]] * 5
    assert update(health, view, 0) == ["still"]
    assert update(health, view, 0) == [], "said once"
    assert update(health, view, 0.1) == []
    assert [update(health, view, 0) for _ in range(3)] == [[], [], ["still"]], "it began again"


def test_scores_that_are_not_finite(health: Health, view: View) -> None:
    before = Mixture.natural(view)
    bad = np.array([np.nan, 0.0, 0.0])
    found = health.after_update(
        before=before, after=before, scores=bad, scored=view.sizes > 0, skipped_updates=1
    )
    assert kinds(found) == ["not-finite"]
    assert "1 updates were skipped" in found[0].message
    assert update(health, view, skipped=2) == []
    assert update(health, view, skipped=2) == []
    assert update(health, view, skipped=3) == ["not-finite"]


def test_scores_that_agree_too_little(health: Health, view: View) -> None:
    mixture = Mixture.natural(view)

    def measured(*scores: float) -> list[str]:
        changed = Mixture(view, np.array([0.2, 0.3, 0.5]))
        return updated(health, mixture, changed, np.array(scores))

    assert measured(1, 2, 3) == measured(1, 2, 3) == []
    assert measured(3, 2, 1) == ["noisy"], "correlations 1 and -1"
    assert measured(3, 2, 1) == [], "correlations -1 and 1: it goes on"
    assert measured(3, 2, 1) == [], "it has ended"
    assert correlation(np.array([1.0, 2.0]), np.array([1.0, 1.0])) is None


def test_domains_without_samples_do_not_agree(health: Health, numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    mixtures = Mixture.natural(view), Mixture.uniform(view)
    filled = view.sizes > 0
    found = []
    for way in (1, -1, 1):
        scores = np.where(filled, 5.0, 0.0)
        scores[np.flatnonzero(filled)] += way * np.linspace(-0.1, 0.1, filled.sum())
        found.append(updated(health, *mixtures, scores))
    assert found == [[], [], ["noisy"]], (
        "empty domains have 0 each time, and the others are opposed"
    )


def warns_of_noise(corpus: Corpus, shrinkage: Shrinkage, signal: float, seed: int) -> bool:
    """Whether a run of 19 updates with the probe's defaults is called noisy.

    Domains differ with the variance `signal`; samples of one domain, and the target's draws, with 1 each.
    """
    view, rng = corpus.domains(k=8), np.random.default_rng(seed)
    mixtures = Mixture.natural(view), Mixture.uniform(view)
    health, found = Health(HealthThresholds(), target="alpha"), []
    leaves = LeafAlignment(corpus, view, half_life=100, shrinkage=shrinkage)
    truth = rng.normal(0, np.sqrt(signal), view.k)
    for step in range(10, 500, 5):
        if step % 25 == 0:
            scores, halves = leaves.read(), leaves.read_halves()
            found += updated(health, *mixtures, scores, halves=halves)
        if step % 10 == 0:
            positions = rng.integers(0, corpus.num_samples, 64)
            seen_now = truth + rng.normal(0, 1, view.k)
            scores = seen_now[view.domains_at(positions)] + rng.normal(0, 1, 64)
            leaves.observe(step, positions, scores)
    return "noisy" in found


@pytest.mark.parametrize("shrinkage", ["none", "tree"])
def test_evidence_that_adds_up_does_not_hide_noise(
    numbered_corpus: Corpus, shrinkage: Shrinkage
) -> None:
    """Successive scores correlate by 0.8 where there is nothing but noise: they share most of it."""
    noise = [warns_of_noise(numbered_corpus, shrinkage, 0, seed) for seed in range(20)]
    assert sum(noise) >= 18
    signal = [warns_of_noise(numbered_corpus, shrinkage, 3, seed) for seed in range(20)]
    assert sum(signal) == 0


def test_halves_that_share_no_domain_say_nothing_of_noise(health: Health, view: View) -> None:
    mixtures = Mixture.natural(view), Mixture(view, np.array([0.2, 0.3, 0.5]))
    scores = np.array([1.0, 2.0, 3.0])
    halves = np.array([[1.0, np.nan, np.nan], [np.nan, 2.0, np.nan]])
    assert [updated(health, *mixtures, scores, halves=halves) for _ in range(4)] == [[]] * 4
    opposed = np.array([[1.0, 2.0, np.nan], [2.0, 1.0, 3.0]])
    assert updated(health, *mixtures, scores, halves=opposed) == []
    assert updated(health, *mixtures, scores, halves=opposed) == ["noisy"]


def test_a_single_domain_neither_moves_nor_collapses(health: Health, corpus: Corpus) -> None:
    only = Mixture.natural(corpus.domains(k=1))
    for _ in range(5):
        assert updated(health, only, only, np.array([1.0])) == []
        assert health.after_record(mixture=only, passes=np.array([1.0])) == []


def test_losses_that_are_not_finite(health: Health, view: View) -> None:
    """ODM moves little in each of its many updates, and owes no agreement."""
    mixture = Mixture.natural(view)
    assert [updated(health, mixture, mixture, None) for _ in range(5)] == [[]] * 5
    assert updated(health, mixture, mixture, None, 1) == ["not-finite"]


def test_a_mixture_of_few_domains_and_a_domain_too_often(health: Health, view: View) -> None:
    wide, narrow = Mixture.natural(view), Mixture(view, np.array([0.97, 0.03, 0.0]))
    few, many = np.array([1.0, 2.0, 3.0]), np.array([1.0, 17.5, 3.0])
    assert kinds(health.after_record(mixture=wide, passes=few)) == []
    assert kinds(health.after_record(mixture=narrow, passes=few)) == ["collapsed"]
    (finding,) = health.after_record(mixture=narrow, passes=many)
    assert (finding.kind, finding.value, finding.threshold) == ("repeated", 17.5, 16.0)
    assert finding.message.startswith("domain 1 has been seen 17.5 times, more than 16")


def test_a_sample_that_is_fitted(health: Health) -> None:
    assert kinds(health.after_evaluation(evaluated(3.0, 2.5))) == []
    assert kinds(health.after_evaluation(evaluated(3.04, 2.0))) == [], "within the threshold"
    assert kinds(health.after_evaluation(evaluated(3.1, 2.6))) == [], "both rise: no fit"
    assert kinds(health.after_evaluation(evaluated(3.1, 1.9))) == ["overfitting"]
    assert kinds(health.after_evaluation(evaluated(np.nan, None))) == []
    assert kinds(Health(THRESHOLDS, target=None).after_evaluation(evaluated(3.0, 1.0))) == []


def test_general_ability_that_is_lost(health: Health) -> None:
    losses = [4.0, 4.05, 4.2, 4.3, 4.0, 4.2]
    found = [kinds(health.after_evaluation(evaluated(3.0, 2.5, loss))) for loss in losses]
    assert found == [[], [], ["forgetting"], [], [], ["forgetting"]]
    assert kinds(health.after_evaluation(evaluated(3.0, 2.5, None))) == []


def test_thresholds_are_the_users_and_travel_as_flags() -> None:
    lenient = TrainConfig(steps=5, basis=("a", "b"), health=HealthThresholds(most_passes=40))
    flags = ["--steps", "5", "--basis", "a,b", "--health.most-passes", "40"]
    assert flags_between(TrainConfig(), lenient) == flags
    with pytest.raises(ValueError, match="noise_updates=0 must be at least 1"):
        HealthThresholds(noise_updates=0)
    for setting in fields(HealthThresholds):
        with pytest.raises(ValueError, match=f"{setting.name}=nan must be a number"):
            HealthThresholds(**{setting.name: float("nan")})


def test_a_run_writes_its_warnings_and_a_resumed_one_the_same(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = HealthThresholds(most_passes=0.2, still_distance=1, still_updates=2, fewest_domains=9)
    config = replace(config, health=limits)
    train(corpus, config, tmp_path / "whole")
    printed = capsys.readouterr().out
    written = records(tmp_path / "whole", "health")
    assert {record["kind"] for record in written} >= {"repeated", "still", "collapsed"}
    assert [record["step"] for record in written if record["kind"] == "still"] == [12]
    for record in written:
        assert f"warning at step {record['step']}: {record['message']}" in printed
    for step in (8, 13, 20):
        run = tmp_path / f"cut{step}"
        with power_cut_at(step):
            train(corpus, config, run, quiet=True)
        with only_the_rest_of(run):
            train(corpus, config, run, quiet=True)
        assert records(run, "health") == written
    assert [w.kind for w in read_run(run).warnings] == [record["kind"] for record in written]


def test_a_diverging_run_warns_of_its_scores(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, learning_rate=1e30, clip_norm=1e30, warmup_steps=0)
    for mixer in ("dga", "odm"):
        run = tmp_path / mixer
        train(corpus, replace(config, mixer=mixer), run, quiet=True)
        assert sorted(r["kind"] for r in records(run, "health")) == ["diverged", "not-finite"]


def test_the_report_shows_what_a_run_warned_of(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Cell(mixer="dga", k=8, target="recipes", seed=0))
    warning = {"event": "health", "step": 1000, "kind": "repeated", "message": "too <often>"}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(2 * (json.dumps(warning) + "\n"))
    page = render_report([read_run(folder)], title="t", names_of=lambda k: DomainNames())
    assert page.count("step 1,000: too &lt;often&gt;") == 1
    assert "dga-k8-recipes-seed0 (1)" in page


def warned(run: Path, printed: str) -> set[str]:
    """Kinds of a run's warnings, each of which stands in its log, its metrics and its report."""
    written = records(run, "health")
    page = render_report([read_run(run)], title="t", names_of=lambda k: DomainNames())
    for record in written:
        assert f"warning at step {record['step']}: {record['message']}" in printed
        assert f"step {record['step']}: {escape(record['message'])}" in page
    return {record["kind"] for record in written}


def test_each_warning_is_in_log_metrics_and_report(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = HealthThresholds(
        most_passes=0.2,
        still_distance=1,
        still_updates=2,
        fewest_domains=9,
        noise_updates=1,
        least_agreement=1.1,
    )
    train(corpus, replace(config, health=strict), tmp_path / "strict")
    found = warned(tmp_path / "strict", capsys.readouterr().out)
    assert found >= {"still", "collapsed", "repeated", "noisy"}
    diverging = replace(config, learning_rate=1e30, clip_norm=1e30, warmup_steps=0)
    train(corpus, diverging, tmp_path / "diverging")
    assert warned(tmp_path / "diverging", capsys.readouterr().out) == {"not-finite", "diverged"}
    # Random text that is learned by heart: the target's train sample is the text that is trained on.
    rng = np.random.default_rng(0)
    text = rng.integers(2, 64, (40, 32)).astype(np.uint16)
    random = open_corpus(
        write_corpus(
            tmp_path / "random",
            [8, 8],
            levels=(1, 2),
            tokens=lambda leaves: text[: len(leaves)],
            tokens_per_sample=32,
            targets={"alpha": (text[:8], text[16:28], np.array([1.0, 0.0]))},
            heldout=text[28:],
        )
    )
    fitting = TrainConfig(
        target="alpha",
        mixer="importance",
        preset="1m",
        steps=80,
        batch_size=8,
        eval_every=8,
        learning_rate=3e-3,
        device="cpu",
    )
    train(random, fitting, tmp_path / "fitting")
    printed = capsys.readouterr().out
    kinds_there = {"overfitting", "forgetting", "collapsed", "repeated"}
    assert warned(tmp_path / "fitting", printed) == kinds_there
