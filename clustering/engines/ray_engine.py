"""The units of a stage on a Ray cluster: Ray Data hands them to actors, and repeats those of lost nodes.

A unit is a block of its own: progress arrives as units finish, and a lost node costs the units that it had in
hand. The actors of a stage end with it, so that the next one has the cluster to itself. Ray gives an actor
one core and sets OMP_NUM_THREADS to that.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clustering.engines.engine import AHEAD, Device, UnitTask
from clustering.errors import BuildError
from pipeline.errors import BraidstreamError

MAX_BEGINNINGS = 4
"""Times that a unit is begun. Ray repeats what a lost process had in hand without end, but a unit that the
memory does not suffice for kills every process that it is given to."""

CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Runs units in all cores of a Ray cluster, or in all its GPUs where a task needs one.

    Every node must have Braidstream installed, and must find the work store, the texts and the models under
    the same names. A program that is connected to Ray stays connected, and `address` is not looked at then.
    """

    address: str = "auto"
    """`auto` for the cluster that this machine is a node of, or `host:port` of its head."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|[^/]+:\d+", self.address):
            raise BuildError(
                f"--ray-address is {self.address!r}; it must be auto or host:port, on a machine that is a "
                "node of the cluster (`ray start --address host:port` makes it one)."
            )

    def run(self, task: UnitTask, units: Sequence[int], advance: Callable[[int], None]) -> None:
        """See `Engine`.

        Raises:
            BuildError: Ray is not installed or not running, or the cluster lacks what a unit needs.
        """
        with _connected(self.address) as ray, closing(_outcomes(ray, task, units)) as outcomes:
            nodes = _nodes(ray)
            for outcome in outcomes:
                if outcome["error"]:
                    raise pickle.loads(outcome["error"])
                advance(outcome["count"])
                before, nodes = nodes, _nodes(ray)
                for lost in before.keys() - nodes.keys():
                    print(
                        f"node {before[lost]} of the Ray cluster was lost: others do what it had in hand",
                        file=sys.stderr,
                    )


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Be a driver on the cluster until the block ends: however it ends, Ray then stops its actors."""
    # What its libraries in C++ would say on the terminal, they also write to the files of the session.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise BuildError(
            f"--engine ray needs the package {error.name!r}, which is not installed. Install the extra that "
            "brings it, on every node: pip install 'braidstream[build,ray]'"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    try:
        if address != "auto":  # where nobody listens, Ray goes on trying for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        # For a lost node, Ray would print pages of the log of any raylet of that address.
        ray._private.worker._worker_logs_enabled = False
    except (OSError, RuntimeError, ValueError) as error:
        raise BuildError(
            f"no Ray cluster answers at {address!r} ({_first_line(error)}). Start one with `ray start "
            "--head`, let other machines join with `ray start --address host:port`, and build on one of them."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _outcomes(ray: Any, task: UnitTask, units: Sequence[int]) -> Generator[dict[str, Any]]:
    """The outcome of each unit (see `_Worker`), as soon as it is there."""
    from ray.data import ActorPoolStrategy
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    beginnings = (
        ray.remote(_Beginnings)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False))
        .remote()
    )
    # Ray Data advises against asking for cores beside a GPU.
    needs = {"num_gpus": 1} if task.device == "cuda" else {"num_cpus": 1}
    data = ray.data.from_items(list(units), override_num_blocks=len(units)).map_batches(
        _Worker,
        batch_size=1,
        fn_constructor_args=(
            type(task).__name__,
            pickle.dumps(task),
            beginnings,
            here,
            str(Path.cwd()),
        ),
        compute=ActorPoolStrategy(
            min_size=1,  # more would keep idle actors, where one of a lost node waits for a core
            initial_size=min(len(units), _places(ray, task.device)),
            max_size=len(units),
            max_tasks_in_flight_per_actor=AHEAD,
        ),
        **needs,
    )
    _silence(data.context)
    try:
        for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
            for count, error in zip(batch["count"].tolist(), batch["error"].tolist(), strict=True):
                yield {"count": count, "error": error}
    except ray.exceptions.RayError as error:
        raise _explained(error) from error


def _places(ray: Any, device: Device) -> int:
    """How many actors the cluster has room for."""
    kind = "GPU" if device == "cuda" else "CPU"
    places = int(ray.cluster_resources().get(kind, 0))
    if not places:
        raise BuildError(
            f"no node of the Ray cluster offers a {kind}, which this stage needs. Let a machine join that "
            "has one (`ray start --address host:port`), or choose another --device."
        )
    return places


def _nodes(ray: Any) -> dict[str, str]:
    """The nodes that are there: what people call each."""
    return {node["NodeID"]: node["NodeName"] for node in ray.nodes() if node["Alive"]}


def _silence(context: Any) -> None:
    """No bars beside ours, and no log on the terminal; the session's log files have it all."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if not hasattr(handler, "baseFilename"):
            handler.setLevel(logging.CRITICAL + 1)


class _Beginnings:
    """How often each unit was begun; an actor beside the coordinator, which no lost node takes along."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def count(self, unit: int) -> int:
        """Count another beginning."""
        self._counts[unit] += 1
        return self._counts[unit]


class _Worker:
    """Does units, in an actor. An error is a result, too: Ray would wrap it, and print it, at length."""

    def __init__(
        self, name: str, task: bytes, beginnings: Any, coordinator: str, folder: str
    ) -> None:
        with suppress(OSError):  # a node without it misses nothing, unless a path is relative
            os.chdir(folder)
        self._name = name
        self._pickled = task
        self._task: UnitTask | None = None
        self._beginnings = beginnings
        self._coordinator = coordinator

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do a unit; returns the count of documents worked on, and the error pickled (or nothing)."""
        (unit,) = batch["item"].tolist()
        try:
            return {"count": [self._do(unit)], "error": [b""]}
        except Exception as error:
            return {"count": [0], "error": [self._portable(error, unit)]}

    def _do(self, unit: int) -> int:
        import ray

        if ray.get(self._beginnings.count.remote(unit)) > MAX_BEGINNINGS:
            raise BuildError(
                f"{MAX_BEGINNINGS} processes died at the same unit, most likely because the memory ran out. "
                "Finished units are kept: run the same command again on nodes that are started with fewer "
                "--num-cpus, which is the number of units that a node does side by side."
            )
        if self._task is None:
            self._task = pickle.loads(self._pickled)
        return self._task(unit)

    def _portable(self, error: Exception, unit: int) -> bytes:
        """The error as it can travel, with a note on where it arose."""
        import ray

        node = socket.gethostname()
        elsewhere = ray.get_runtime_context().get_node_id() != self._coordinator
        if isinstance(error, FileNotFoundError) and elsewhere:
            error = BuildError(
                f"node {node} does not find {error.filename!r}: nodes must share the folders of the texts, "
                "the work and the models (or keep the work in an object store: --work s3://bucket/prefix)."
            )
        if not isinstance(error, BraidstreamError):
            error.add_note("".join(traceback.format_exception(error)))
        error.add_note(f"in unit {unit} of {self._name}, on node {node}")
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        except Exception:  # an error whose class wants more than its message
            return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
        return pickled


def _explained(error: Exception) -> BuildError:
    """What Ray itself gives up on, in a sentence."""
    text = str(error)
    missing = re.search(r"No module named '([\w.]+)'", text)
    if missing:
        return BuildError(
            f"a node of the Ray cluster does not have the package {missing[1]!r}. Install the same "
            "Braidstream on every node, in the Python that Ray was started with: pip install "
            "'braidstream[build,ray]'"
        )
    return BuildError(
        f"Ray gave up: {_first_line(error)} Finished units are kept: see to the cluster (`ray status`), then "
        "run the same command again."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
