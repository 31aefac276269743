"""Whole runs of a small model: what they record, and that a stop anywhere changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import BudgetError, Corpus
from tests.trainer.conftest import CPU
from trainer import TrainConfig, train
from trainer.mixers import PRESETS
from trainer.run.checkpoint import Checkpoint, save_checkpoint
from trainer.run.config import ConfigError
from trainer.run.learner import Learner
from trainer.run.resolve import idle_settings, learns_nothing, resolve
from trainer.run.run_folder import RunFolder, RunFolderError, make_folder

pytestmark = pytest.mark.usefixtures("tiny_preset")

TIMINGS = {"seconds", "tokens_per_second", "wait_seconds", "data_wait_share"}


class PowerCutError(Exception):
    """What stands for a killed process: nothing is saved on the way out."""


@contextmanager
def power_cut_at(step: int) -> Iterator[None]:
    whole_step = Learner.step

    def cut(self: Learner, at: int, *others: Any) -> Any:
        if at == step:
            raise PowerCutError
        return whole_step(self, at, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", cut)
        with pytest.raises(PowerCutError):
            yield


@contextmanager
def only_the_rest_of(run: Path) -> Iterator[None]:
    """What trains in `run` meanwhile takes the steps after its last checkpoint, and none before.

    A run that began anew would end with the same bits.
    """
    saved = max((run / "checkpoints").glob("step-*"), default=None)
    first = 0 if saved is None else int(saved.name.removeprefix("step-"))
    whole_step, taken = Learner.step, []

    def noted(self: Learner, at: int, *others: Any) -> Any:
        taken.append(at)
        return whole_step(self, at, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", noted)
        yield
    assert taken == list(range(first, json.loads((run / "config.json").read_text())["steps"]))


@contextmanager
def records_stay(run: Path) -> Iterator[None]:
    """What `run` recorded before its last checkpoint stays; for runs that go on in other processes.

    A run that began anew would take other times.
    """
    saved = max((run / "checkpoints").glob("step-*"))
    count = json.loads((saved / "state.json").read_text())["metrics_bytes"]
    before = (run / "metrics.jsonl").read_bytes()[:count]
    assert b'"tokens_per_second"' in before
    yield
    assert (run / "metrics.jsonl").read_bytes()[:count] == before


def records(run: Path, event: str | None = None) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    return [record for record in found if event in (None, record["event"])]


def without_timings(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMINGS}


def final_weights(run: Path, step: int = 24) -> dict[str, torch.Tensor]:
    path = run / "checkpoints" / f"step-{step:06d}" / "model.pt"
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def assert_same_run(one: Path, other: Path, *, step: int = 24) -> None:
    """The same weights to the last bit, and the same records but for the time they took."""
    weights = final_weights(other, step)
    for name, value in final_weights(one, step).items():
        assert torch.equal(value, weights[name]), name
    left, right = ([without_timings(record) for record in records(run)] for run in (one, other))
    assert left == right
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    assert without_timings(results[0]) == without_timings(results[1])


@pytest.fixture(scope="module")
def whole_config(config: TrainConfig) -> TrainConfig:
    return replace(config, evaluate=("beta",), mixer="dga-paced", ema=0.5)


@pytest.fixture(scope="module")
def whole_run(
    corpus: Corpus, whole_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(corpus, whole_config, run, quiet=True)
    return run


def test_a_run_records_what_it_did(whole_run: Path, corpus: Corpus) -> None:
    assert [record["step"] for record in records(whole_run, "train")] == [5, 10, 15, 20, 24]
    assert [record["step"] for record in records(whole_run, "eval")] == [10, 20, 24]
    mixtures = records(whole_run, "mixture")
    assert [record["step"] for record in mixtures] == [0, 6, 10, 12, 18, 20, 24]
    assert [r["step"] for r in mixtures if r["scores"] is not None] == [6, 12, 18]
    for record in mixtures:
        assert sum(record["weights"]) == pytest.approx(1)
        assert sum(record["effective"]) == pytest.approx(1)
        assert len(record["passes"]) == 6
        assert record["effective_domains"] == pytest.approx(np.exp(record["entropy"]))
    moved = [
        0.5 * np.abs(np.subtract(b["weights"], a["weights"])).sum() for a, b in pairwise(mixtures)
    ]
    np.testing.assert_allclose([record["moved"] for record in mixtures[1:]], moved)
    last = records(whole_run, "train")[-1]
    assert last["tokens"] == 24 * 8 * corpus.tokens_per_sample
    assert 0 <= last["data_wait_share"] < 1
    first = records(whole_run, "train")[0]
    assert last["train_loss"] < first["train_loss"]
    evaluation = records(whole_run, "eval")[-1]
    assert set(evaluation["target_loss"]) == {"alpha", "beta"}
    for name, gap in evaluation["generalization_gap"].items():
        expected = evaluation["target_loss"][name] - evaluation["target_train_loss"][name]
        assert gap == pytest.approx(expected)


def test_the_result_agrees_with_the_metrics(whole_run: Path) -> None:
    result = json.loads((whole_run / "result.json").read_text())
    evaluations = records(whole_run, "eval")
    assert result["format_version"] == 1
    assert result["steps"] == 24
    assert result["target_loss_final"] == evaluations[-1]["target_loss"]
    assert result["generic_loss_final"] == evaluations[-1]["generic_loss"]
    for name, best in result["target_loss_best"].items():
        losses = {record["step"]: record["target_loss"][name] for record in evaluations}
        assert best == {"loss": min(losses.values()), "step": min(losses, key=losses.__getitem__)}
    config = json.loads((whole_run / "config.json").read_text())
    assert result["config"].items() <= config.items()
    assert (config["step_size"], config["ema"], config["max_passes"]) == (5.0, 0.5, 8)
    assert (config["precision"], config["epsilon"]) == ("float32", 5e-5)


def test_two_checkpoints_are_kept(whole_run: Path) -> None:
    names = sorted(path.name for path in (whole_run / "checkpoints").iterdir())
    assert names == ["step-000021", "step-000024"]


def test_a_checkpoint_is_removed_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(step: int) -> None:
        save_checkpoint(
            tmp_path, Checkpoint(step=step, model={}, optimizer={}, random={}, state={})
        )

    def cut(folder: Path) -> None:
        (folder / "model.pt").unlink()
        raise PowerCutError

    save(1)
    save(2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(PowerCutError):
            save(3)
    assert all((saved / "model.pt").exists() for saved in tmp_path.glob("step-*"))
    save(4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]


@pytest.mark.parametrize("step", [3, 7, 8, 13, 14, 20, 23])
def test_a_run_killed_anywhere_ends_with_the_same_bits(
    corpus: Corpus, whole_config: TrainConfig, whole_run: Path, tmp_path: Path, step: int
) -> None:
    with power_cut_at(step):
        train(corpus, whole_config, tmp_path / "run", quiet=True)
    with only_the_rest_of(tmp_path / "run"):
        train(corpus, whole_config, tmp_path / "run", quiet=True)
    assert_same_run(tmp_path / "run", whole_run)


def test_a_run_killed_again_and_again_ends_with_the_same_bits(
    corpus: Corpus, whole_config: TrainConfig, whole_run: Path, tmp_path: Path
) -> None:
    for step in (8, 9, 16, 22):
        with power_cut_at(step):
            train(corpus, whole_config, tmp_path / "run", quiet=True)
        (tmp_path / "run" / "checkpoints" / ".step-000021.tmp").mkdir(exist_ok=True)
    with only_the_rest_of(tmp_path / "run"):
        train(corpus, whole_config, tmp_path / "run", quiet=True)
    assert_same_run(tmp_path / "run", whole_run)


EVERY_MIXER = [
    *(
        f"{name}+update_every=2" if "update_every" in PRESETS[name].uses else name
        for name in PRESETS
    ),
    "doge+toward=all+bregman=0.001+update_every=2",
    "dga-distributions+start=importance+ema=0.5+update_every=2",
    "dga-ema+continue_from=average+update_every=2",
    "dga-paced+max_passes=2+surplus=importance+update_every=2",
    "dga+shrinkage=tree+measured_domains=3+update_every=2",
    "dga-paced+estimator=probe+probe_every=1+update_every=2",
    "dga+estimator=probe+shrinkage=none+probe_every=3+update_every=2",
]


@pytest.mark.parametrize("mixer", EVERY_MIXER)
def test_a_run_restored_at_every_step_ends_with_the_same_bits(
    corpus: Corpus,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mixer: str,
) -> None:
    """The folder as each step leaves it, with what a killed process had written since, goes on from there."""
    steps = 5
    config = replace(
        config,
        mixer=mixer,
        steps=steps,
        batch_size=4,
        update_every=None,
        checkpoint_every=1,
        log_every=2,
        eval_every=3,
        eval_sequences=4,
        target_batch=8,
    )
    if mixer == "schedule":
        plan = [
            {"step": 0, "weights": [1, 2, 3, 4, 5, 6]},
            {"step": 4, "weights": [1, 0, 0, 0, 0, 1]},
        ]
        (tmp_path / "plan.jsonl").write_text("\n".join(map(json.dumps, plan)))
        config = replace(config, weights_file=str(tmp_path / "plan.jsonl"))
    whole = tmp_path / "whole"

    def saving(checkpoints: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(checkpoints, checkpoint)
        copy = shutil.copytree(whole, tmp_path / f"at{checkpoint.step}")
        with (copy / "metrics.jsonl").open("a") as metrics:
            metrics.write('{"event":"train","step":99}\n{"event":"tr')

    with monkeypatch.context() as patch:
        patch.setattr("trainer.run.loop.save_checkpoint", saving)
        train(corpus, config, whole, quiet=True)
    for step in range(1, steps + 1):
        with only_the_rest_of(tmp_path / f"at{step}"):
            train(corpus, config, tmp_path / f"at{step}", quiet=True)
        assert_same_run(tmp_path / f"at{step}", whole, step=steps)
    if PRESETS[mixer.partition("+")[0]].signal == "alignment":
        assert records(whole, "mixture")[-1]["moved_total"] > 0


@pytest.mark.parametrize("k", [3, 6])
def test_distributions_record_their_own_weights_and_scores(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, k: int
) -> None:
    config = replace(config, mixer="dga-distributions", basis=("natural", "beta"), k=k)
    train(corpus, config, tmp_path / "run", quiet=True)
    record = records(tmp_path / "run", "mixture")[1]
    assert list(record["basis_weights"]) == ["alpha", "natural", "beta"]
    assert sum(record["basis_weights"].values()) == pytest.approx(1)
    assert len(record["basis_scores"]) == 3
    assert record["scores"] is None


def test_how_often_is_recorded_and_saved_does_not_change_the_weights(
    corpus: Corpus, whole_config: TrainConfig, whole_run: Path, tmp_path: Path
) -> None:
    config = replace(whole_config, log_every=1, eval_every=3, checkpoint_every=24)
    train(corpus, config, tmp_path / "run", quiet=True)
    expected = final_weights(whole_run)
    for name, value in final_weights(tmp_path / "run").items():
        assert torch.equal(value, expected[name])


def test_a_finished_run_is_left_alone(
    corpus: Corpus, whole_config: TrainConfig, whole_run: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")}
    result = train(corpus, whole_config, whole_run, quiet=True)
    assert result == json.loads((whole_run / "result.json").read_text())
    assert before == {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")}


def test_other_settings_in_the_same_folder_are_an_error_that_names_them(
    corpus: Corpus, whole_config: TrainConfig, whole_run: Path
) -> None:
    other = replace(whole_config, seed=1, learning_rate=2e-3, log_every=3)
    with pytest.raises(RunFolderError) as caught:
        train(corpus, other, whole_run, quiet=True)
    assert "seed (there 0, now 1), learning_rate (there 0.001, now 0.002)" in str(caught.value)
    assert "log_every" not in str(caught.value)


def test_a_folder_has_one_process_at_a_time(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    other = RunFolder(tmp_path / "run")
    assert other.take()
    with pytest.raises(
        RunFolderError, match=r"another process trains in .*/run\. Wait for its end"
    ):
        train(corpus, config, tmp_path / "run", quiet=True)
    assert not other.config_file.exists()
    other.close()
    with power_cut_at(3):
        train(corpus, config, tmp_path / "run", quiet=True)
    assert other.take(), "what ended is forgotten"
    other.close()


def test_a_run_killed_before_it_began_begins_and_one_without_its_config_does_not(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    RunFolder(tmp_path).check(resolve(config, corpus, CPU), corpus)
    (tmp_path / "checkpoints" / "step-000007").mkdir()
    with pytest.raises(RunFolderError, match=r"without config\.json; move the folder away"):
        RunFolder(tmp_path).check(resolve(config, corpus, CPU), corpus)


def test_a_folder_of_something_else_is_no_place_for_a_run(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds 'thesis\.txt', and no run: .* new or empty"):
        train(corpus, config, tmp_path, quiet=True)
    (tmp_path / "thesis.txt").unlink()
    for content in ('{"model_type": "gpt2"}', "[]", "no JSON"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(RunFolderError, match=r"holds 'config\.json', and no run"):
            train(corpus, config, tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(RunFolderError, match="and no run"):
        train(corpus, config, corpus.path, quiet=True)


def test_a_folder_with_nothing_but_logs_takes_a_run(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    for name in ("log.txt", "train.log", "slurm-12.out", ".gitkeep", "config.json.new"):
        (tmp_path / name).touch()
    train(corpus, replace(config, steps=2, update_every=None), tmp_path, quiet=True)
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_file_where_a_run_should_be_is_named(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match=r"/file is a file, and a run needs a folder.*--out"):
        train(corpus, config, tmp_path / out, quiet=True)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
def test_a_place_where_no_folder_can_be_is_an_error(corpus: Corpus, config: TrainConfig) -> None:
    with pytest.raises(RunFolderError, match=r"/proc/run/checkpoints cannot be made .*--out"):
        train(corpus, config, "/proc/run", quiet=True)


def test_a_corpus_that_may_only_be_read_wants_another_folder_for_its_runs(
    without_rights: Path,
) -> None:
    (without_rights / "corpus").mkdir(mode=0o555)
    with pytest.raises(RunFolderError, match=r"cannot be made \(Permission denied.*another --out"):
        make_folder(without_rights / "corpus" / "runs" / "dga")


def test_a_run_of_a_version_that_had_fewer_settings_goes_on(
    corpus: Corpus, whole_config: TrainConfig, whole_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole_run, tmp_path / "run")
    recorded = json.loads((run / "config.json").read_text())
    assert recorded.pop("continue_from") == "weights"
    (run / "config.json").write_text(json.dumps(recorded))
    assert train(corpus, whole_config, run, quiet=True)["steps"] == 24
    with pytest.raises(RunFolderError, match=r"continue_from .there None, now 'average'"):
        train(corpus, replace(whole_config, continue_from="average"), run, quiet=True)


def test_the_budget_holds_and_pacing_does_not_need_all_of_it(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, mixer="importance", k=12, steps=40, max_passes=2.0, update_every=None)
    train(corpus, config, tmp_path / "run", quiet=True)
    mixtures = records(tmp_path / "run", "mixture")
    passes = np.array([record["passes"] for record in mixtures])
    assert passes.max() <= 2.0
    assert (passes[-1, 4:8] > 1.8).all(), "the target's domains are used as far as they may be"
    wanted, effective = (np.array(mixtures[1][name]) for name in ("weights", "effective"))
    assert wanted[4:8].sum() == pytest.approx(1)
    assert effective[4:8].sum() < 0.7
    assert sum(passes[-1] * corpus.domains(k=12).sizes) == pytest.approx(40 * 8)


def test_a_budget_that_cannot_supply_the_run_is_refused(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="Allow at least"):
        train(corpus, replace(config, max_passes=0.5), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_natural_needs_no_target_and_evaluates_all(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, mixer="natural", target=None, update_every=None)
    result = train(corpus, config, tmp_path / "run", quiet=True)
    assert set(result["target_loss_final"]) == {"alpha", "beta"}
    assert all(record["scores"] is None for record in records(tmp_path / "run", "mixture"))
    assert len(records(tmp_path / "run", "mixture")) == 4


def test_dga_moves_towards_the_target(corpus: Corpus, config: TrainConfig, tmp_path: Path) -> None:
    for estimator in ("difference", "exact"):
        run = tmp_path / estimator
        train(corpus, replace(config, k=3, estimator=estimator), run, quiet=True)
        weights = records(run, "mixture")[-1]["weights"]
        assert weights[1] > 0.9, f"{estimator}: alpha is text like domain 1"


def test_a_diverging_run_keeps_its_mixture_and_says_so(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, learning_rate=1e30, clip_norm=1e30, warmup_steps=0)
    result = train(corpus, config, tmp_path / "run", quiet=True)
    assert result["skipped_updates"] == 3
    assert records(tmp_path / "run", "mixture")[-1]["moved_total"] == 0
    assert records(tmp_path / "run", "train")[-1]["train_loss"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradients": "cosine"}, "estimator='exact'"),
        ({"mixer": "dga+gradients=cosine"}, "estimator='exact'"),
        (
            {"mixer": "dga+estimator=probe", "data_parallel": "shard"},
            "leaves no rank a whole layer",
        ),
        ({"mixer": "dga", "measured_domains": 2}, "leaves domains without a score"),
    ],
)
def test_ways_to_measure_that_do_not_go_together_are_refused_at_once(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"mixer": "dga+estimator=exact", "gradients": "cosine"},
        {"mixer": "dga+shrinkage=tree", "measured_domains": 2},
    ],
)
def test_what_an_option_needs_can_be_in_the_mixers_name(
    corpus: Corpus, settings: dict[str, Any]
) -> None:
    config = resolve(TrainConfig(target="alpha", **settings), corpus, CPU)
    assert resolve(config, corpus, CPU) == config


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"learning_rate": -1.0},
        {"eval_every": 0},
        {"epsilon": 0.0},
        {"compile": "yes"},
        {"data_parallel": "Shard"},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=f"{name}={setting[name]!r}"):
        TrainConfig(**setting)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mixer": "natural", "step_size": 2.0},
            "step_size changes nothing in the mixer 'natural'",
        ),
        ({"mixer": "dga", "repeat_decay": 1.0}, "it takes a bound on repetition, max_passes"),
        ({"mixer": "importance-paced", "update_every": 5}, "update_every changes nothing"),
        ({"mixer": "dga", "basis": ("alpha",)}, "'dga': it belongs to dga-distributions"),
        ({"mixer": "natural", "weights_file": "a.jsonl"}, "'natural': it belongs to schedule"),
        ({"mixer": "schedule"}, "'schedule' reads its weights from a file and none was given"),
    ],
)
def test_a_setting_that_the_mixer_does_not_use_is_refused(
    corpus: Corpus, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(corpus, TrainConfig(target="alpha", **changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_a_name_says_of_measuring_is_what_is_recorded(corpus: Corpus) -> None:
    name = "dga+shrinkage=tree+half_life=50+sequences_per_domain=1"
    config = resolve(TrainConfig(target="alpha", mixer=name, half_life=7), corpus, CPU)
    assert (config.shrinkage, config.half_life, config.sequences_per_domain) == ("tree", 50, 1)
    assert resolve(config, corpus, CPU) == config
    with pytest.raises(ConfigError, match="shrinkage='tree' takes scores of single samples"):
        resolve(replace(config, mixer="dga+shrinkage=tree+estimator=exact"), corpus, CPU)


@pytest.mark.parametrize(
    ("mixer", "most"),
    [
        ("dga", 25),
        ("odm", 1),
        ("dga+estimator=probe", 25),
        ("dga+estimator=probe+update_every=10", 20),
        ("dga+estimator=probe+probe_every=60", 75),
    ],
)
def test_a_run_that_ends_before_its_mixer_has_learned_is_noticed(mixer: str, most: int) -> None:
    for steps in (most, most + 1):
        reason = learns_nothing(TrainConfig(target="alpha", mixer=mixer, steps=steps))
        assert ("weights stay where they begin" in reason) == (steps == most)
        assert ("--probe-every" in reason) == ("probe" in mixer and steps == most)


def test_settings_without_effect_are_noticed() -> None:
    assert idle_settings(TrainConfig(mixer="natural", estimator="probe", half_life=5)) == [
        "estimator",
        "half_life",
    ]
    dga = TrainConfig(mixer="dga", target="alpha", probe_every=2, half_life=5)
    assert idle_settings(dga) == ["half_life", "probe_every"]
    tree = replace(dga, mixer="dga+shrinkage=tree", probe_every=10)
    assert idle_settings(tree) == []
    few = replace(tree, shrinkage="tree", measured_domains=2)
    assert idle_settings(few) == []
    for mixer in ("dga+estimator=probe", "dga-distributions"):
        assert idle_settings(replace(few, mixer=mixer)) == ["measured_domains"]
    doge = TrainConfig(mixer="doge", target="alpha", target_batch=8)
    assert idle_settings(doge) == []
    for towards_all in (replace(doge, toward="all"), replace(doge, mixer="doge+toward=all")):
        assert idle_settings(towards_all) == ["target_batch"]
    assert idle_settings(TrainConfig(mixer="doge+toward=all+target_batch=8")) == ["target_batch"]


@pytest.mark.parametrize(
    "mixer",
    ["natural", "importance", "dga", "dga-distributions", "doge", "doge+toward=all"],
)
def test_a_setting_without_effect_makes_no_other_run(
    corpus: Corpus, tmp_path: Path, mixer: str
) -> None:
    config, folder = TrainConfig(mixer=mixer, target="alpha"), RunFolder(tmp_path)
    folder.begin(resolve(config, corpus, CPU), corpus, CPU)
    idle = replace(config, probe_every=3, half_life=7)
    if mixer != "dga-distributions":
        idle = replace(idle, sequences_per_distribution=9)
    if mixer in ("natural", "importance"):
        idle = replace(idle, epsilon=1.0, target_batch=2, shrinkage="tree", measured_domains=2)
    if mixer == "doge+toward=all":
        idle = replace(idle, target_batch=2)
    folder.check(resolve(idle, corpus, CPU), corpus)
    assert resolve(idle, corpus, CPU) == resolve(config, corpus, CPU)
