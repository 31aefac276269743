"""Models inside wrappers that leave nothing to measure, or nobody to measure it, and what to give instead."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def check_parameters_are_seen(loss: nn.Module) -> None:
    """Raise ValueError where a rank has only pieces of parameters that are no tensors of the model's.

    FSDP1 and DeepSpeed's third stage do that; FSDP2 (`fully_shard`) leaves DTensors, which alignment can
    count, read and move.
    """
    if any(_is_fsdp1(module) for module in loss.modules()):
        raise ValueError(
            "the model of the loss is wrapped by FSDP1 (FullyShardedDataParallel), which joins its "
            "parameters and cuts them up: they can be neither counted nor read nor moved one by one. Train "
            f"with {_INSTEAD}."
        )
    if any(hasattr(parameter, "ds_id") for parameter in loss.parameters()):
        raise ValueError(
            "the parameters of the loss are partitioned by DeepSpeed's ZeRO stage 3: outside its own passes "
            f"they are empty, and can be neither counted nor read nor moved. Train with {_INSTEAD}."
        )


def check_rank_measures_alone(loss: nn.Module, *, world_size: int) -> None:
    """Raise ValueError where a forward pass of `loss` waits for other ranks, which may take fewer of them."""
    modules = list(loss.modules())
    if world_size > 1 and any(isinstance(module, DistributedDataParallel) for module in modules):
        raise ValueError(
            "the loss that is measured looks through DistributedDataParallel, whose passes exchange buffers "
            "and wait for all ranks, and ranks measure different numbers of samples. Give Steering the model "
            "inside, such as TokenLoss(model.module, …): it has the same parameters."
        )
    if any(type(module).__module__.partition(".")[0] == "deepspeed" for module in modules):
        raise ValueError(
            "the loss that is measured looks through a DeepSpeed engine, whose passes belong to its own "
            "training step. Give Steering the model inside, such as TokenLoss(engine.module, …): under the "
            "ZeRO stages 0 to 2 it has the same parameters."
        )


def _is_fsdp1(module: nn.Module) -> bool:
    """By name: whoever does not use it need not load it, and torch may have been built without."""
    return any(
        kind.__name__ == "FullyShardedDataParallel"
        and kind.__module__.startswith("torch.distributed.fsdp")
        for kind in type(module).__mro__
    )


_INSTEAD = (
    "FSDP2 (torch.distributed.fsdp.fully_shard) or DistributedDataParallel, or take a mixer that asks "
    "nothing of the model, such as natural or importance-fading+restraint=full"
)
