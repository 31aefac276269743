"""From the options of a command to its engine."""

from __future__ import annotations

from typing import Literal, Protocol

from clustering.engines.engine import Engine
from clustering.engines.local_engine import LocalEngine
from clustering.engines.ray_engine import RayEngine
from clustering.errors import BuildError

EngineName = Literal["local", "ray"]


class EngineOptions(Protocol):
    """The options of a command that say who does its units."""

    @property
    def engine(self) -> EngineName:
        """Who does them."""

    @property
    def workers(self) -> int:
        """Processes of the local engine."""

    @property
    def ray_address(self) -> str:
        """Where the cluster of the other one is."""

    @property
    def device(self) -> str:
        """Where the embedding model runs."""


def chosen_engine(options: EngineOptions) -> Engine:
    """The engine that `options` name.

    Raises:
        BuildError: An option is for the other engine.
    """
    if options.engine == "local":
        if options.ray_address != "auto":
            raise BuildError(
                f"--ray-address is {options.ray_address!r}, but --engine is local, which uses no cluster: "
                "give --engine ray, too."
            )
        return LocalEngine(options.workers)
    if options.workers != 1:
        raise BuildError(
            f"--workers is {options.workers}, which is for --engine local. A Ray cluster does as many units "
            "side by side as it has cores: `ray start --num-cpus N` says how many a node lends."
        )
    if options.device.startswith("cuda:"):
        raise BuildError(
            f"--device is {options.device!r}, but with --engine ray each worker has a GPU of its own, and "
            "Ray decides which: give --device cuda."
        )
    return RayEngine(options.ray_address)
