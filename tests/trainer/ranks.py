"""Processes that stand for ranks, as torchrun would start them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.multiprocessing import start_processes

from tests.processes import quick_processes
from tests.servers.store_server import free_ports


def free_port() -> int:
    """A port that nobody listens on right now."""
    return free_ports(1)[0]


def start_ranks(function: Callable[..., None], *args: Any, count: int) -> None:
    """Call `function(rank, *args)` in `count` processes, and wait for all of them."""
    quick_processes(
        "tests.trainer.ranks", "trainer.run.loop", "torch._dynamo", "torch.distributed.fsdp"
    )
    start_processes(function, args=args, nprocs=count, start_method="forkserver")


def become_rank(rank: int, world_size: int, port: int) -> None:
    """Describe the group of processes as torchrun does; one thread, since they run side by side."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)


def note_graphs(graphs: list[set[str]]) -> None:
    """Let `torch.compile` write down what every graph calls, and generate no code."""
    from torch._dynamo.backends.registry import lookup_backend

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        called = {getattr(node.target, "__name__", "") for node in graph.graph.nodes}
        graphs.append(called)
        return lookup_backend("aot_eager")(graph, inputs)  # type: ignore[no-any-return]

    torch.compile = partial(torch.compile, backend=backend)  # type: ignore[assignment]
