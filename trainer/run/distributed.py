"""Any number of processes: who this one is, and how sums are taken over all of them.

`torchrun --nproc-per-node N -m trainer.train_command …` starts the processes; on its own, a process is
rank 0 of 1 and nothing here communicates. Sums come out bit-identical on every rank, and every decision
(a mixture, a stop) is made from such sums, so the ranks never drift apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from pipeline import BraidstreamError


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among all processes of the run."""

    rank: int = 0
    """Index of this process."""
    world_size: int = 1
    """Number of processes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def sum_tensors(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, in one exchange."""
        if self.world_size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum_array(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all ranks of an array in main memory."""
        if self.world_size == 1:
            return values
        tensor = torch.from_numpy(values.copy()).to(meeting_place())
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def gather_array(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The arrays of all ranks, of one shape, as the rows of one: (world_size, *shape)."""
        rows = np.zeros((self.world_size, *values.shape))
        rows[self.rank] = values
        return self.sum_array(rows)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one rank."""
        return bool(self.sum_array(np.array([float(flag)]))[0] > 0)

    def wait_for_all(self) -> None:
        """Return when every rank has come here."""
        if self.world_size > 1:
            dist.barrier()


def meeting_place() -> torch.device:
    """Where the process group sums: main memory if it can, else GPUs, as in one of nccl alone.

    Such a group is what the Hugging Face Trainer and Lightning make; `joined_ranks` makes one with both.
    """
    backends = dist.get_backend_config()  # such as "cpu:gloo,cuda:nccl"
    return torch.device("cpu" if "cpu:" in backends else backends.partition(":")[0])


class DeviceError(BraidstreamError):
    """A device that is not here."""


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is this process's GPU if the machine has one.

    Raises `DeviceError` for a GPU where there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(f"device={name!r}, and torch finds no GPU here. Take auto or cpu.")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun describes in the environment; leave it at the end."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # This module keeps the default group of its first import in its functions' defaults. The first optimizer
    # imports it; inside a group, that group's threads would outlive `destroy_process_group`. One that lets go
    # of a tensor needs Python for it, and where Python is ending by then, that aborts a process whose work is
    # done.
    import_module("torch.distributed.nn.functional")
    # torchrun's store outlives processes that it restarts, and with it the addresses of those that died.
    store, rank, world_size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    # Small decisions travel through main memory with gloo, so that they never wait for the GPU.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"restart {restarts}", store),  # type: ignore[attr-defined]
        rank=rank,
        world_size=world_size,
    )
    try:
        yield Ranks(rank=rank, world_size=world_size)
    finally:
        dist.destroy_process_group()
