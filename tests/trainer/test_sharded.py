"""FSDP2 on processes of their own, over gloo: the same scores as one process, the same weights after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.ranks import become_rank, free_port, note_graphs, start_ranks
from tests.trainer.tiny_models import PAD, gpt, learned_loss, some_tokens
from trainer.alignment.alignment import AlignmentSamples, Probe
from trainer.alignment.difference import DifferenceEstimator
from trainer.alignment.exact import ExactEstimator
from trainer.alignment.probe import BatchProbe
from trainer.model import TokenLoss, compile_parts
from trainer.run.distributed import Ranks, joined_ranks

CPU = torch.device("cpu")
DOMAINS, SEQUENCES, TARGET = 5, 2, 7


def samples_of(rank: int, world_size: int) -> AlignmentSamples:
    """Five domains and seven target sequences, which no two ranks share evenly."""
    domains = np.arange(DOMAINS)[rank::world_size]
    tokens = np.stack([some_tokens(domain, SEQUENCES).numpy() for domain in range(DOMAINS)])
    return AlignmentSamples(
        k=DOMAINS,
        domains=domains,
        tokens=tokens[domains],
        positions=np.arange(DOMAINS * SEQUENCES).reshape(DOMAINS, SEQUENCES)[domains],
        target=some_tokens(50, TARGET, below=10).numpy()[rank::world_size],
        target_total=TARGET,
    )


def probe(loss: TokenLoss, ranks: Ranks) -> Probe:
    return Probe(loss=loss, batch_size=2, pad_id=PAD, device=CPU, ranks=ranks)


def learned() -> TokenLoss:
    torch.manual_seed(0)
    return learned_loss(gpt())


def _measure_as_rank(rank: int, world_size: int, port: int, out: Path, compiled: bool) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    become_rank(rank, world_size, port)
    loss = learned()
    if compiled:
        note_graphs([])
        compile_parts(loss, loss.model)
    with joined_ranks(CPU) as ranks:
        # In the mesh of four, two halves hold copies of each other's shards (HSDP).
        if world_size == 4:
            mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))
        else:
            mesh = init_device_mesh("cpu", (world_size,))
        for block in loss.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(loss, mesh=mesh)
        before = [parameter.to_local().clone() for parameter in loss.parameters()]
        with torch.no_grad():  # an evaluation leaves what is outside the blocks gathered
            loss(some_tokens(9, 4))
        measured = DifferenceEstimator(probe=probe(loss, ranks), epsilon=1e-3).scores(
            samples_of(rank, world_size)
        )
        parameters: list[Any] = list(loss.parameters())
        restored = [
            torch.equal(old, new.to_local()) for old, new in zip(before, parameters, strict=True)
        ]
        untouched = [parameter.grad is None for parameter in parameters]
        with torch.no_grad():
            after = loss(some_tokens(9, 4))
        ending: dict[str, Any] = {
            "sharded": all(isinstance(parameter, DTensor) for parameter in parameters),
            "restored": all(restored) and all(untouched),
            "scores": torch.from_numpy(measured.values),
            "norm": measured.target_gradient_norm,
            "target_loss": measured.target_loss,
            "loss_after": after,
        }
        torch.save(ending, out / f"rank{rank}.pt")


@pytest.mark.parametrize(("world_size", "compiled"), [(2, True), (4, False)])
def test_sharded_scores_are_those_of_one_process(
    tmp_path: Path, world_size: int, compiled: bool
) -> None:
    start_ranks(_measure_as_rank, world_size, free_port(), tmp_path, compiled, count=world_size)
    endings = [
        torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(world_size)
    ]
    loss = learned()
    alone = DifferenceEstimator(probe=probe(loss, Ranks()), epsilon=1e-3).scores(samples_of(0, 1))
    with torch.no_grad():
        loss_alone = loss(some_tokens(9, 4))
    for ending in endings:
        assert ending["sharded"]
        assert ending["restored"]
        assert torch.equal(ending["scores"], endings[0]["scores"])
        np.testing.assert_allclose(ending["scores"], alone.values, rtol=0.02, atol=2e-4)
        assert ending["norm"] == pytest.approx(alone.target_gradient_norm, rel=1e-5)
        assert ending["target_loss"] == pytest.approx(alone.target_loss, rel=1e-5)
        torch.testing.assert_close(ending["loss_after"], loss_alone)


def _refusals(rank: int, port: int) -> None:
    from torch.distributed.fsdp import fully_shard

    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo")
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    loss = learned()
    model: Any = loss.model
    fully_shard(model.blocks[0], mesh=mesh)
    with pytest.raises(ValueError, match=r"model\.embedding\.weight"):
        ExactEstimator(probe=probe(loss, Ranks()))
    fully_shard(loss, mesh=mesh)
    with pytest.raises(ValueError, match="Take DifferenceEstimator"):
        ExactEstimator(probe=probe(loss, Ranks()))
    with pytest.raises(ValueError, match="Take DifferenceEstimator"):
        BatchProbe(loss)
    torch.distributed.destroy_process_group()


def test_what_a_sharded_model_cannot_have_is_refused() -> None:
    start_ranks(_refusals, free_port(), count=1)
