"""From the options of a command to its engine."""

from __future__ import annotations

from typing import Literal

from clustering.engine import Engine
from clustering.errors import BuildError
from clustering.local_engine import LocalEngine
from clustering.ray_engine import RayEngine

EngineName = Literal["local", "ray"]


def chosen_engine(name: EngineName, *, workers: int, ray_address: str, device: str) -> Engine:
    """The engine that the options name.

    Raises:
        BuildError: An option is for the other engine.
    """
    if name == "local":
        if ray_address != "auto":
            raise BuildError(
                f"--ray-address is {ray_address!r}, but --engine is local, which uses no cluster: give "
                "--engine ray, too."
            )
        return LocalEngine(workers)
    if workers != 1:
        raise BuildError(
            f"--workers is {workers}, which is for --engine local. A Ray cluster does as many units side by "
            "side as it has cores: `ray start --num-cpus N` says how many a node lends."
        )
    if device.startswith("cuda:"):
        raise BuildError(
            f"--device is {device!r}, but with --engine ray each worker has a GPU of its own, and Ray "
            "decides which: give --device cuda."
        )
    return RayEngine(ray_address)
