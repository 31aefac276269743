from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clustering.errors import BuildError
from clustering.trees.descent import NumpyDescent, TorchDescent
from clustering.trees.kmeans import Node, SklearnKMeans, TorchKMeans
from clustering.trees.tree_fit import FittedSample, fit_sample
from pipeline.cores import usable_cores


def unit(points: NDArray[Any]) -> NDArray[np.float16]:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)


def blobs(centers: int, per_center: int, *, spread: float = 0.05) -> NDArray[np.float16]:
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(centers, 16)), per_center, axis=0)
    return unit(points + spread * rng.normal(size=points.shape))


def crowd(rows: int) -> NDArray[np.float16]:
    """Vectors of which two thirds are one dense cloud."""
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(1, 16)) + 0.2 * rng.normal(size=(2 * rows // 3, 16))
    return unit(np.concatenate([dense, rng.normal(size=(rows - len(dense), 16))]))


def fit(vectors: NDArray[Any], **options: Any) -> FittedSample:
    defaults: dict[str, Any] = {"branching": (4, 4), "min_split": 8, "max_share": None, "seed": 0}
    return fit_sample(vectors, **(defaults | options))


def test_separate_blobs_become_separate_domains() -> None:
    fitted = fit(blobs(4, 50))
    first_level = np.searchsorted(fitted.tree.leaf_bounds(1), fitted.leaf, "right") - 1
    assert [len(set(first_level[i : i + 50])) for i in range(0, 200, 50)] == [1, 1, 1, 1]
    assert fitted.tree.levels == (1, 4, 16)


def test_every_leaf_has_members_and_assignment_finds_them_there() -> None:
    vectors = crowd(3_000)
    fitted = fit(vectors, branching=(8, 8, 8))
    assert (np.bincount(fitted.leaf, minlength=fitted.tree.num_leaves) > 0).all()
    np.testing.assert_array_equal(fitted.tree.assign(vectors.astype(np.float32)), fitted.leaf)


def test_centroids_are_unit_and_parents_ascend() -> None:
    tree = fit(blobs(5, 60), branching=(3, 3, 3)).tree
    for centroids, parents in zip(tree.centroids, tree.parents, strict=True):
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
        assert (np.diff(parents) >= 0).all()


def test_a_small_node_is_its_own_only_child() -> None:
    rng = np.random.default_rng(2)
    far = unit(-blobs(1, 5).astype(np.float32) + 0.01 * rng.normal(size=(5, 16)))
    fitted = fit(np.concatenate([blobs(1, 100), far]), branching=(2, 3), min_split=20)
    small = int(np.searchsorted(fitted.tree.leaf_bounds(1), fitted.leaf[-1], "right") - 1)
    children = np.flatnonzero(fitted.tree.parents[1] == small)
    assert len(children) == 1
    np.testing.assert_allclose(
        fitted.tree.centroids[1][children[0]], fitted.tree.centroids[0][small], atol=1e-6
    )


def test_a_node_is_not_split_into_more_children_than_its_rows_allow() -> None:
    fitted = fit(blobs(1, 40), branching=(64,), min_split=8)
    assert fitted.tree.num_leaves <= 10


@pytest.mark.parametrize("count", [1, 30])
def test_equal_documents_make_one_domain_and_no_warning(count: int) -> None:
    fitted = fit(np.repeat(blobs(1, 1), count, axis=0))
    assert fitted.tree.levels == (1, 1, 1)
    assert len(fitted.tree.split_order) == 0


def test_no_leaf_has_more_than_five_times_the_mean() -> None:
    sizes = np.bincount(fit(crowd(6_000), branching=(8, 8)).leaf)
    assert sizes.max() <= 5 * sizes.mean()


def test_a_bound_on_the_share_holds_at_every_level() -> None:
    vectors = crowd(6_000)
    assert max(fit(vectors, branching=(8, 8), max_share=1.0).largest_share) > 0.3
    assert max(fit(vectors, branching=(8, 8), max_share=0.3).largest_share) <= 0.3


def test_a_bound_that_equal_children_would_break_is_refused() -> None:
    with pytest.raises(BuildError, match=r"must lie above 0\.125"):
        fit(crowd(100), branching=(8,), max_share=0.1)


@pytest.mark.parametrize("seed", [0, 5])
def test_equal_input_and_seed_give_equal_trees(seed: int) -> None:
    vectors = crowd(2_000)
    first, second = fit(vectors, seed=seed), fit(vectors, seed=seed)
    for name, array in first.tree.arrays().items():
        np.testing.assert_array_equal(array, second.tree.arrays()[name])


def test_torch_clusters_as_well_as_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    vectors = unit(rng.normal(size=(40, 24)).repeat(100, axis=0) + rng.normal(size=(4_000, 24)))
    bounds = [(0, 1_500), (1_500, 2_400), (2_400, 4_000)]
    inertia = []
    for kmeans in (SklearnKMeans(), TorchKMeans("cpu")):
        total = 0.0
        # One start differs from another by up to 4%, whoever clusters; the sum over eight tells.
        for seed in range(8):
            nodes = [
                Node(rows=np.arange(*bound), children=16, limit=bound[1], seed=10 * seed + number)
                for number, bound in enumerate(bounds)
            ]
            for node, of in zip(nodes, kmeans(vectors, nodes), strict=True):
                cosine = vectors[node.rows].astype(np.float32) @ of.T
                total += float((1 - cosine.max(axis=1)).sum())
        inertia.append(total)
    assert inertia[1] == pytest.approx(inertia[0], rel=0.01)


def test_torch_goes_down_the_tree_as_numpy_does() -> None:
    vectors = crowd(3_000)
    tree = fit(vectors, branching=(5, 7, 3), min_split=40).tree
    leaf, distance = NumpyDescent(tree.centroids, tree.parents)(vectors)
    torch_leaf, torch_distance = TorchDescent(tree.centroids, tree.parents, "cpu")(vectors)
    np.testing.assert_array_equal(torch_leaf, leaf)
    np.testing.assert_allclose(torch_distance, distance, atol=1e-5)
    own = tree.centroids[-1][leaf]
    np.testing.assert_allclose(distance, 1 - (own * vectors).sum(1), atol=1e-5)


@pytest.mark.parametrize("descend", [NumpyDescent, partial(TorchDescent, device="cpu")])
def test_a_vector_in_doubt_finds_a_nearer_leaf_below_the_second_branch(descend: Any) -> None:
    first = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)
    leaves = unit(np.array([[1, 0, 1], [1, 0, -1], [0.4, 1, 0], [0, 1, 1]])).astype(np.float32)
    descent = descend([first, leaves], [np.zeros(2, dtype=np.int64), np.array([0, 0, 1, 1])])
    in_doubt, sure = [1.02, 1, 0], [1.6, 1, 0]  # both are nearest to the first branch and to leaf 2
    leaf, distance = descent(unit(np.array([in_doubt, sure])).astype(np.float32))
    assert leaf.tolist() == [2, 0]
    assert distance[0] < 0.1 < distance[1]


def test_a_process_on_one_core_fits_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, or under a scheduler that binds jobs to cores of a larger machine."""
    workers: list[int] = []

    class Noted(ThreadPoolExecutor):
        def __init__(self, max_workers: int, **options: Any) -> None:
            workers.append(max_workers)
            super().__init__(max_workers, **options)

    for module in ("kmeans", "tree_fit"):
        monkeypatch.setattr(f"clustering.trees.{module}.ThreadPoolExecutor", Noted)
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert usable_cores() == 1
        fit(blobs(4, 50))
    finally:
        os.sched_setaffinity(0, cores)
    assert set(workers) == {1}


def test_a_node_is_clustered_in_one_thread_also_by_libraries_that_are_loaded_for_it() -> None:
    script = """
import numpy as np
from threadpoolctl import threadpool_info
from clustering.trees import kmeans

def threads(vectors, node):
    import sklearn.cluster
    return max(library["num_threads"] for library in threadpool_info())

kmeans._fit_node = threads
node = kmeans.Node(rows=np.arange(8), children=2, limit=8, seed=0)
print(kmeans.SklearnKMeans()(np.eye(8, dtype=np.float32), [node]))
"""
    environment = os.environ | {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    command = (sys.executable, "-c", script)
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[1]"
