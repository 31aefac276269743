"""Ranks in processes of their own, over gloo: the same bits everywhere, the same run as one process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from pipeline import Batch, Corpus, open_corpus
from tests.trainer.ranks import become_rank, free_port, note_graphs, start_ranks
from trainer.run import sharding
from trainer.run.batches import to_device
from trainer.run.config import TrainConfig
from trainer.run.distributed import joined_ranks, meeting_place
from trainer.run.interrupt import Interrupt
from trainer.run.learner import Learner
from trainer.run.loop import Run
from trainer.run.resolve import resolve
from trainer.run.run_folder import RunFolder

CPU = torch.device("cpu")


def _train_as_rank(
    rank: int, port: int, corpus_path: Path, config: TrainConfig, out: Path, world_size: int
) -> None:
    """One process of a run; writes what it ends with, to be compared outside."""
    become_rank(rank, world_size, port)
    corpus = open_corpus(corpus_path)
    with joined_ranks(CPU) as ranks, Interrupt() as interrupt:
        run = Run(
            corpus,
            resolve(config, corpus, CPU),
            RunFolder(out),
            ranks=ranks,
            device=CPU,
            quiet=True,
        )
        run.to_the_end(interrupt)
        ending: dict[str, Any] = {
            "model": run.learner.state_dict()["model"],
            "mixture": torch.from_numpy(run.stream.mixture.probabilities.copy()),
            "drawn": torch.from_numpy(run.stream.samples_drawn),
        }
        torch.save(ending, out.with_name(f"{out.name}-rank{rank}.pt"))


def test_ranks_agree_to_the_bit_and_with_one_process(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    start_ranks(_train_as_rank, free_port(), corpus.path, config, two, 2, count=2)
    start_ranks(_train_as_rank, free_port(), corpus.path, config, one, 1, count=1)
    first, second, alone = (
        torch.load(tmp_path / name, weights_only=True)
        for name in ("two-rank0.pt", "two-rank1.pt", "one-rank0.pt")
    )
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
        torch.testing.assert_close(value, alone["model"][name], rtol=0, atol=5e-3)
    assert torch.equal(first["mixture"], second["mixture"])
    assert torch.equal(first["drawn"], second["drawn"])
    # One process rounds its sums differently; the mixture and with it the draw may differ by a hair.
    np.testing.assert_allclose(first["mixture"], alone["mixture"], atol=0.01)
    assert int((first["drawn"] - alone["drawn"]).abs().sum()) <= 6


def test_a_run_continues_on_another_number_of_ranks(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    from tests.trainer.test_run import power_cut_at, records, records_stay
    from trainer import train

    with power_cut_at(15):
        train(corpus, config, tmp_path / "run", quiet=True)
    with records_stay(tmp_path / "run"):
        start_ranks(_train_as_rank, free_port(), corpus.path, config, tmp_path / "run", 2, count=2)
    train(corpus, config, tmp_path / "whole", quiet=True)
    ended, whole = (records(tmp_path / name, "train")[-1] for name in ("run", "whole"))
    assert abs(ended["train_loss"] - whole["train_loss"]) < 0.02


def test_a_record_that_a_stop_divides_has_the_losses_of_all_ranks(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    from tests.trainer.test_run import records

    config = replace(config, steps=9, log_every=9, checkpoint_every=8, update_every=20)
    run = tmp_path / "run"
    start_ranks(_train_as_rank, free_port(), corpus.path, config, run, 2, count=2)
    (whole,) = records(run, "train")
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000009")
    start_ranks(_train_as_rank, free_port(), corpus.path, config, run, 2, count=2)
    (resumed,) = records(run, "train")
    assert resumed["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-6)
    assert resumed["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-6)


def test_three_ranks_that_go_on_end_with_the_same_bits(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, mixer="importance", update_every=None, steps=6, checkpoint_every=3)
    config = replace(config, batch_size=6)
    run, weights = tmp_path / "run", []
    for _ in range(2):
        start_ranks(_train_as_rank, free_port(), corpus.path, config, run, 3, count=3)
        weights.append(torch.load(tmp_path / "run-rank0.pt", weights_only=True)["model"])
        (run / "result.json").unlink()
        shutil.rmtree(run / "checkpoints" / "step-000006")
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_sharded_run_is_the_replicated_run_and_continues_in_one_process(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    from tests.trainer.test_run import only_the_rest_of, records
    from trainer import train

    sharded = replace(config, mixer="dga", data_parallel="shard", checkpoint_every=10)
    for name, run in [("sharded", sharded), ("whole", replace(sharded, data_parallel="replicate"))]:
        start_ranks(_train_as_rank, free_port(), corpus.path, run, tmp_path / name, 2, count=2)
    first, second, whole = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("sharded-rank0", "sharded-rank1", "whole-rank0")
    )
    assert torch.equal(first["mixture"], second["mixture"])
    assert torch.equal(first["drawn"], second["drawn"])
    np.testing.assert_allclose(first["mixture"], whole["mixture"], atol=0.01)
    for name, value in first["model"].items():
        torch.testing.assert_close(value, whole["model"][name], rtol=0, atol=5e-3)

    run = tmp_path / "sharded"
    (last,) = records(run, "train")[-1:]
    (run / "result.json").unlink()
    newest = max((run / "checkpoints").iterdir())
    shutil.rmtree(newest)
    with only_the_rest_of(run):
        train(corpus, sharded, run, quiet=True)
    assert records(run, "train")[-1]["train_loss"] == pytest.approx(last["train_loss"], abs=0.02)


def test_small_layers_are_gathered_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    sharded: list[Any] = []
    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", lambda given: sharded.append(given))
    wide, narrow = (sharding.GATHERED_AT_ONCE // 1_000 + more for more in (0, -1))
    widths = (wide, narrow, narrow, wide, narrow)
    layers = nn.ModuleList(nn.Linear(1_000, n, bias=False, device="meta") for n in widths)
    sharding.shard_layers(layers, layers)
    assert sharded == [[layers[0]], [layers[1], layers[2]], [layers[3]], [layers[4]], layers]


def _train_compiled(
    rank: int, port: int, corpus_path: Path, config: TrainConfig, out: Path
) -> None:
    graphs: list[set[str]] = []
    note_graphs(graphs)
    sharding.GATHERED_AT_ONCE = (
        1  # each layer by itself; the other sharded run gathers all together
    )
    _train_as_rank(rank, port, corpus_path, config, out, 2)
    torch.save(graphs, out.with_name(f"{out.name}-graphs{rank}.pt"))


def test_a_sharded_run_is_the_same_compiled_head_and_loss_included(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    from tests.trainer.test_run import records

    plain = replace(config, mixer="dga", data_parallel="shard", compile="off")
    for name, run in [("plain", plain), ("compiled", replace(plain, compile="on"))]:
        start_ranks(_train_compiled, free_port(), corpus.path, run, tmp_path / name, count=2)
    first, second, expected, graphs = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("compiled-rank0", "compiled-rank1", "plain-rank0", "compiled-graphs0")
    )
    rest = [graph for graph in graphs if "scaled_dot_product_attention" not in graph]
    assert len(rest) < len(graphs)
    for called in ("linear", "cross_entropy"):
        assert any(called in graph for graph in rest), called
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
        torch.testing.assert_close(value, expected["model"][name], rtol=0, atol=5e-3)
    np.testing.assert_allclose(first["mixture"], expected["mixture"], atol=0.01)
    losses, of_plain = (
        [record["train_loss"] for record in records(tmp_path / name, "train")]
        for name in ("compiled", "plain")
    )
    assert losses == pytest.approx(of_plain, abs=1e-4)


def test_ranks_agree_when_a_compiled_run_is_scored_in_parts(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    alone = replace(config, estimator="probe", probe_every=4, batch_size=16, compile="off")
    arguments = (free_port(), corpus.path, alone, tmp_path / "alone", 1)
    start_ranks(_train_as_rank, *arguments, count=1)
    run = replace(alone, compile="on")
    start_ranks(_train_compiled, free_port(), corpus.path, run, tmp_path / "ranks", count=2)
    first, second, expected = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("ranks-rank0", "ranks-rank1", "alone-rank0")
    )
    assert torch.equal(first["mixture"], second["mixture"])
    np.testing.assert_allclose(first["mixture"], expected["mixture"], atol=0.01)
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
        torch.testing.assert_close(value, expected["model"][name], rtol=0, atol=5e-3)


def _learn_after_measuring(
    rank: int, port: int, corpus_path: Path, config: TrainConfig, out: Path, world_size: int
) -> None:
    """Three steps, after the same tokens went through the loss as a measurement sends them."""
    graphs: list[set[str]] = []
    become_rank(rank, world_size, port)
    note_graphs(graphs)
    corpus = open_corpus(corpus_path)
    with joined_ranks(CPU) as ranks:
        learner = Learner(resolve(config, corpus, CPU), corpus, ranks=ranks, device=CPU)
        positions = np.arange(config.batch_size).reshape(world_size, -1)[rank]
        tokens = corpus.read(positions)
        learner.loss(to_device(tokens, CPU))
        for step in range(3):
            domains = np.zeros_like(positions)
            learner.step(step, Batch(step, tokens, domains, positions))
        ending = {"graphs": graphs, "model": learner.state_dict()["model"]}
        torch.save(ending, out.with_name(f"{out.name}-rank{rank}.pt"))


def test_compiled_gradients_come_in_buckets_even_after_a_measurement(
    corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    for mode in ("on", "off"):
        run = replace(config, compile=mode)  # type: ignore[arg-type]
        arguments = (free_port(), corpus.path, run, tmp_path / mode, 2)
        start_ranks(_learn_after_measuring, *arguments, count=2)
    first, second, expected = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("on-rank0", "on-rank1", "off-rank0")
    )
    assert len(first["graphs"]) > 1
    assert not any({"embedding", "cross_entropy"} <= graph for graph in first["graphs"])
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
        torch.testing.assert_close(value, expected["model"][name], rtol=0, atol=1e-4)


def _places_of_groups(rank: int, port: int, out: Path) -> None:
    """Where sums are taken in groups that serve one kind of device and both; gloo stands for nccl."""
    become_rank(rank, 1, port)
    places = []
    for backend in ("gloo", "cpu:gloo,cuda:gloo", "cuda:gloo"):
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        places.append(meeting_place().type)
        torch.distributed.destroy_process_group()
    out.write_text(" ".join(places), encoding="utf-8")


def test_sums_are_taken_on_gpus_where_the_group_has_no_other_place(tmp_path: Path) -> None:
    start_ranks(_places_of_groups, free_port(), tmp_path / "places", count=1)
    assert (tmp_path / "places").read_text("utf-8") == "cpu cpu cuda"


def _threads_after_leaving(rank: int, port: int, out: Path) -> None:
    """Join and leave a group, with an optimizer's first step inside; writes which threads are left."""
    become_rank(rank, 2, port)
    with joined_ranks(CPU) as ranks:
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([weight])
        weight.sum().backward()
        optimizer.step()
        ranks.sum_tensors([weight.detach()])
    threads = [path.read_text("utf-8").strip() for path in Path("/proc/self/task").glob("*/comm")]
    (out / f"rank{rank}").write_text("\n".join(threads), encoding="utf-8")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    """One that did could meet the end of Python and abort a run that was finished."""
    multiprocessing.spawn(_threads_after_leaving, args=(free_port(), tmp_path), nprocs=2)
    for rank in range(2):
        threads = (tmp_path / f"rank{rank}").read_text("utf-8").split("\n")
        assert not [name for name in threads if "gloo" in name or "tcpstore" in name]
