"""Parameters that are cut over the ranks (FSDP2, `torch.distributed.fsdp.fully_shard`).

A rank holds its shard of every parameter. Layers are gathered while they compute, and gradients come
back as shards, averaged over the ranks. So a gradient takes a backward pass that every rank joins, a norm
takes an exchange, and weights that were moved by hand must not be computed with as they were gathered
before.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from trainer.run.distributed import Ranks

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

GATHERED_AT_ONCE = 25_000_000
"""Parameters that are gathered together at least. FSDP2 is Python around every gathering: layers of 7M
parameters one by one took it 67 to 87 ms a step, in which an H200 computed for 59."""


def is_sharded(module: nn.Module) -> bool:
    """Whether `fully_shard` has been applied."""
    return any(True for _ in _fsdp_modules(module))


def return_to_shards(module: nn.Module) -> None:
    """Have `parameters()` be shards, if the module is cut; `ValueError` if `fully_shard` left out some.

    A pass without a backward pass, as an evaluation's, leaves those of the outermost module whole.
    """
    if not is_sharded(module):
        return
    forget_gathered(module)
    left = [name for name, parameter in module.named_parameters() if not _is_dtensor(parameter)]
    if left:
        raise ValueError(
            f"fully_shard was applied to parts of the model and {', '.join(left[:3])} lie in none of them. "
            "Apply it to the whole model last."
        )


def shard_layers(module: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Cut `module` over all ranks, to be gathered in runs of layers; the rest is gathered once."""
    from torch.distributed.fsdp import fully_shard

    run, size = list[nn.Module](), 0
    for layer in layers:
        run.append(layer)
        size += sum(parameter.numel() for parameter in layer.parameters())
        if size >= GATHERED_AT_ONCE:
            fully_shard(run)
            run, size = [], 0
    if run:
        fully_shard(run)
    fully_shard(module)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be cut; where it is, every rank must call this alike."""
    return cast("DTensor", tensor).full_tensor() if _is_dtensor(tensor) else tensor


def cut_like(pattern: Tensor, tensor: Tensor) -> Tensor:
    """Cut a whole `tensor` as `pattern` is cut, if it is; every rank must call this alike."""
    if not _is_dtensor(pattern):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    cut = cast("DTensor", pattern)
    return distribute_tensor(tensor, cut.device_mesh, cut.placements)


def local_shards(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this rank holds of each tensor: the same memory, so that it can be written to."""
    return [
        cast("DTensor", tensor).to_local().detach() if _is_dtensor(tensor) else tensor.detach()
        for tensor in tensors
    ]


def sharded_gradient(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """This rank's shards of the gradient of Σ_ranks loss; every rank must call this alike.

    What stood in `.grad` stands there again afterwards.
    """
    kept = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    shards = []
    for parameter, before in zip(parameters, kept, strict=True):
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        ranks = cast("DTensor", parameter).device_mesh.size()  # of whose losses it is the mean
        shards.append(cast("DTensor", found).to_local() * ranks)
        parameter.grad = before
    return shards


def sharded_norm(shards: Sequence[Tensor], parameters: Sequence[Tensor], ranks: Ranks) -> Tensor:
    """Euclidean norm over all ranks of the tensors whose shards these are, cut as `parameters` are."""
    copies = []
    for parameter in parameters:
        cut = cast("DTensor", parameter)
        placed = zip(cut.placements, cut.device_mesh.shape, strict=True)
        copies.append(math.prod(size for placement, size in placed if placement.is_replicate()))
    norms = torch.stack(torch._foreach_norm(list(shards)))
    total = (norms.square() / torch.tensor(copies).to(norms)).sum()
    ranks.sum_tensors([total])
    return total.sqrt()


def forget_gathered(module: nn.Module) -> None:
    """Let the next forward pass gather the weights anew: they were changed in the shards."""
    for part in _fsdp_modules(module):
        part.reshard()


def _fsdp_modules(module: nn.Module) -> Iterator[FSDPModule]:
    # Whoever has sharded a model has imported this, which takes a second that all others may keep.
    if fsdp := sys.modules.get("torch.distributed.fsdp"):
        yield from (part for part in module.modules() if isinstance(part, fsdp.FSDPModule))


def _is_dtensor(tensor: Tensor) -> bool:
    tensor_module = sys.modules.get("torch.distributed.tensor")
    return tensor_module is not None and isinstance(tensor, tensor_module.DTensor)
