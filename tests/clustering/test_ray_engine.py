"""Builds on a Ray cluster of two nodes: two raylets on this machine, each of which lends one core."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from clustering.add_config import AddConfig
from clustering.build import build
from clustering.config import BuildConfig, TargetSource
from clustering.embedding.embed_task import EmbedTask
from clustering.engines.engine import Device, UnitTask
from clustering.engines.ray_engine import MAX_BEGINNINGS, RayEngine
from clustering.errors import BuildError
from clustering.work.progress import Progress
from clustering.work.work_store import LocalWork
from tests.clustering.conftest import (
    KINDS,
    documents_of,
    small_config,
    write_lines,
    write_model,
)
from tests.clustering.test_local_engine import Square, assert_no_worker_outlives
from tests.servers.store_server import StoreServer

pytest.importorskip("ray")
# Ray warns of options of its own when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

REPOSITORY = Path(__file__).parents[2]
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def cluster(s3_server: StoreServer) -> Iterator[Any]:
    """Two nodes that know of the object store; the coordinator will be on the first."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-")  # the paths of sockets must be short
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(REPOSITORY))
        s3_server.use(environment)
        # Else the address would be left in /tmp/ray, if there is one, in the place of a cluster in use.
        environment.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        cluster = Cluster(
            initialize_head=True,
            head_node_args={**NODE, "include_dashboard": False, "temp_dir": folder},
        )
        try:
            cluster.add_node(**NODE)
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 short documents in 4 files, and an embedding model that is made in no time."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "texts").mkdir()
    for kind in KINDS:
        write_lines(folder / "texts" / f"{kind}.jsonl", documents_of(kind, 100))
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def config(folder: Path, cooking_target: TargetSource) -> BuildConfig:
    """A build of several units in most stages."""
    return small_config(
        folder / "texts",
        folder / "local",
        cooking_target,
        model=str(folder / "model"),
        device="cpu",
        tokens_per_sample=16,
        part_documents=64,
        format="webdataset",  # whose writer a process imports in a fraction of the time
    )


@pytest.fixture(scope="module")
def fingerprint(config: BuildConfig) -> str:
    """What one machine makes."""
    return build(config, Progress(quiet=True)).manifest.fingerprint


def on(cluster: Any, config: BuildConfig, **options: Any) -> str:
    """Build on the cluster; returns the fingerprint."""
    config = replace(config, engine="ray", ray_address=cluster.address, **options)
    return build(config, Progress(quiet=True)).manifest.fingerprint


def test_a_cluster_builds_what_one_machine_builds(
    cluster: Any,
    config: BuildConfig,
    fingerprint: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)  # where the nodes have not been started: relative paths mean the same
    relative = {"corpus": "texts", "model": "model", "out": Path("ray")}
    assert on(cluster, config, **relative) == fingerprint


@pytest.mark.slow
def test_a_cluster_keeps_work_and_corpus_in_an_object_store(
    cluster: Any,
    config: BuildConfig,
    fingerprint: str,
    s3: StoreServer,
    new_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BRAIDSTREAM_CACHE", str(tmp_path))
    work, out = s3.address(f"{new_prefix}/work"), s3.address(f"{new_prefix}/corpus")
    assert on(cluster, config, work=work, out=out) == fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class Slow:
    """A task whose units take a while, and leave a note of the node that did them."""

    task: UnitTask
    notes: LocalWork

    @property
    def device(self) -> Device:
        return self.task.device

    def __call__(self, unit: int) -> int:
        time.sleep(0.3)
        done = self.task(unit)
        self.notes.publish(f"{node()}/{unit}", b"")
        return done


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupted:
    """A Ray engine; while it embeds, something happens."""

    engine: RayEngine
    notes: LocalWork
    happen: Callable[[], None]

    def run(self, task: UnitTask, units: Sequence[int], advance: Callable[[int], None]) -> None:
        if not isinstance(task, EmbedTask):
            self.engine.run(task, units, advance)
            return
        waiting = [self.happen]

        def advance_or_happen(count: int) -> None:
            advance(count)
            if waiting and len({name.split("/")[0] for name in self.notes.names("")}) == 2:
                waiting.pop()()

        self.engine.run(Slow(task=task, notes=self.notes), units, advance_or_happen)
        assert not waiting


def node() -> str:
    """The node of Ray that this process belongs to."""
    import ray

    return ray.get_runtime_context().get_node_id()


@pytest.mark.slow
def test_a_node_that_dies_while_it_embeds_costs_time_only(
    cluster: Any,
    config: BuildConfig,
    fingerprint: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (doomed,) = cluster.worker_nodes
    notes = LocalWork(tmp_path / "notes")
    engine = Interrupted(
        engine=RayEngine(cluster.address),
        notes=notes,
        happen=lambda: cluster.remove_node(doomed, allow_graceful=False),
    )
    try:
        report = build(
            # More parts, which change no fingerprint: many are left when both nodes have done one.
            replace(config, out=tmp_path / "corpus", part_documents=16),
            Progress(quiet=True),
            engine=engine,
        )
    finally:
        cluster.add_node(**NODE)
    assert report.manifest.fingerprint == fingerprint
    by_node = {name.split("/")[0] for name in notes.names("")}
    assert doomed.node_id in by_node
    said = capfd.readouterr()
    assert "of the Ray cluster was lost" in said.err
    assert "raylet" not in said.out + said.err


def test_every_unit_is_done_once_and_counted(cluster: Any, tmp_path: Path) -> None:
    store = LocalWork(tmp_path)
    counted: list[int] = []
    task = Square(store=store, seconds=0.1)
    RayEngine(cluster.address).run(task, range(0, 40, 2), counted.append)
    assert sum(counted) == 20
    results = [store.content(name).split() for name in store.names("squares/")]
    assert [int(square) for square, _ in results] == [n * n for n in range(0, 40, 2)]
    assert len({process for _, process in results}) == 2  # one on each node


def test_the_error_of_a_unit_reaches_the_caller_as_itself(cluster: Any, tmp_path: Path) -> None:
    store = LocalWork(tmp_path)
    with pytest.raises(BuildError, match="3 is bad") as caught:
        RayEngine(cluster.address).run(Square(store=store, bad=3), range(8), lambda count: None)
    assert str(caught.value) == "3 is bad"
    assert any("in unit 3 of Square, on node" in note for note in caught.value.__notes__)
    assert "squares/000" in store.names("squares/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent:
    """Needs a file that only the coordinator's node has."""

    coordinator: str
    path: Path
    device: Device = "cpu"

    def __call__(self, unit: int) -> int:
        if node() == self.coordinator:
            time.sleep(0.2)
            return 1
        return len(self.path.read_bytes())


@pytest.mark.slow
def test_a_node_that_lacks_a_file_is_named(cluster: Any, tmp_path: Path) -> None:
    task = Absent(coordinator=cluster.head_node.node_id, path=tmp_path / "texts.jsonl")
    with pytest.raises(BuildError, match=r"does not find '.*texts.jsonl': nodes must share"):
        RayEngine(cluster.address).run(task, range(20), lambda count: None)


@pytest.mark.slow
def test_a_unit_that_kills_every_process_is_given_up(cluster: Any, tmp_path: Path) -> None:
    task = Square(store=LocalWork(tmp_path), deadly=1)
    with pytest.raises(BuildError, match=f"{MAX_BEGINNINGS} processes died at the same unit"):
        RayEngine(cluster.address).run(task, range(4), lambda count: None)


@pytest.mark.slow
def test_a_stage_that_no_node_can_do_is_refused(cluster: Any, tmp_path: Path) -> None:
    task = Square(store=LocalWork(tmp_path), device="cuda")
    with pytest.raises(BuildError, match="no node of the Ray cluster offers a GPU"):
        RayEngine(cluster.address).run(task, range(4), lambda count: None)


@pytest.mark.slow
def test_what_needs_a_gpu_goes_to_the_node_that_offers_one(cluster: Any, tmp_path: Path) -> None:
    notes = LocalWork(tmp_path / "notes")
    task = Slow(task=Square(store=LocalWork(tmp_path), device="cuda"), notes=notes)
    with_gpu = cluster.add_node(**NODE, num_gpus=1)  # as far as Ray knows
    try:
        RayEngine(cluster.address).run(task, range(4), lambda count: None)
    finally:
        cluster.remove_node(with_gpu)
    assert set(notes.names("")) == {f"{with_gpu.node_id}/{unit}" for unit in range(4)}


ENDLESS = """
import sys
from pathlib import Path
from clustering.engines.ray_engine import RayEngine
from clustering.work.work_store import LocalWork
from tests.clustering.test_local_engine import Square

task = Square(store=LocalWork(Path(sys.argv[1])), seconds=0.05)
RayEngine(sys.argv[2]).run(task, range(2_000), lambda count: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_coordinator(
    cluster: Any, tmp_path: Path, how: signal.Signals
) -> None:
    store = LocalWork(tmp_path / "work")
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(store.folder), cluster.address],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert_no_worker_outlives(process, store, how, seconds=30)


def test_a_cluster_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"no Ray cluster answers at '127.0.0.1:1'.*ray start --head"
    ):
        RayEngine("127.0.0.1:1").run(Square(store=LocalWork(tmp_path)), range(2), print)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"ray_address": "10.0.0.1:6379"}, "give --engine ray"),
        ({"engine": "ray", "ray_address": "ray://10.0.0.1:10001"}, "must be auto or host:port"),
        ({"engine": "ray", "workers": 4}, "--num-cpus N"),
        ({"engine": "ray", "device": "cuda:1"}, "give --device cuda"),
    ],
)
def test_options_of_the_other_engine_are_refused(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(BuildError, match=remedy):
        BuildConfig(corpus="texts", out=Path("corpus"), **options)
    with pytest.raises(BuildError, match=remedy):
        AddConfig(corpus="corpus", texts=("texts",), **options)
