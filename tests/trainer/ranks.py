"""Processes that stand for ranks, as torchrun would start them."""

from __future__ import annotations

import os

import torch

from tests.servers.store_server import free_ports


def free_port() -> int:
    """A port that nobody listens on right now."""
    return free_ports(1)[0]


def become_rank(rank: int, world_size: int, port: int) -> None:
    """Describe the group of processes as torchrun does; one thread, since they run side by side."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
