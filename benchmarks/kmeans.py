"""The cluster tree beside flat k-means: seconds, distance, assignment rate, balance.

    python -m benchmarks.kmeans VECTORS.npy --branching 64,64          against scikit-learn and faiss, flat
    python -m benchmarks.kmeans VECTORS.npy --samples 16,32,64,128     how much of a sample a tree needs
    python -m benchmarks.kmeans VECTORS.npy --views 16,128,512,1024    views beside flat k-means
    python -m benchmarks.kmeans --gpu --json kmeans.json           10M vectors to 262,144 leaves on one GPU

VECTORS is one or more files of float16 or float32 (n, dim), of unit norm (benchmarks/passage_vectors.py makes
one); a twentieth of them, at most 20,000, is held out. Distance is the mean squared distance of held-out
vectors to the centroid that they are assigned to, scaled to unit norm whatever way found it: 2 - 2 cos.
`tree, descent` is what a build does: down the tree, level by level, a unit per thread. `tree, exact`
takes the nearest of all leaves. Balance is over the vectors that were clustered: the largest cluster over the
mean, the effective number of clusters (exponential of the entropy of their shares), and how many are empty.

With --gpu the vectors are a mixture that is made on the card: 64 x 64 x 64 directions, each level around the
one above it, and noise. They are float16 and stay on the card; the fit takes a sample of them from the host.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import machine_line, table
from clustering.trees.descent import NumpyDescent, TorchDescent, as_float32, one_thread
from clustering.trees.kmeans import unit
from clustering.trees.tree_fit import fit_sample

HELDOUT = 20_000
WAYS = ("tree", "sklearn", "faiss")
BLOCK = 4_096
UNIT = 2**14
GPU_BLOCK = 2**20
ROUNDS = 3
Assign = Callable[[NDArray[Any]], NDArray[np.int64]]
Vectors = NDArray[Any]


def main() -> None:
    """Print a table; with --json, keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vectors", type=Path, nargs="*")
    parser.add_argument("--branching", default="64,64")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu", help="cuda fits and assigns the tree with torch")
    parser.add_argument("--samples", help="documents per leaf, with commas: fit on so many")
    parser.add_argument("--views", help="numbers of domains, with commas: views of the tree")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--count", type=int, default=10_000_000, help="vectors of --gpu")
    parser.add_argument("--dim", type=int, default=384, help="dimensions of --gpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    branching = tuple(int(part) for part in options.branching.split(","))
    if options.gpu:
        rows = list(on_gpu(options.count, options.dim))
    elif not options.vectors:
        parser.error("name a .npy file of vectors, or pass --gpu")
    else:
        vectors, heldout = divide(np.concatenate([np.load(path) for path in options.vectors]))
        if options.samples:
            sizes = [int(part) for part in options.samples.split(",")]
            rows = list(by_sample(vectors, heldout, branching, sizes, options.device))
        elif options.views:
            ks = [int(part) for part in options.views.split(",")]
            rows = list(by_view(vectors, heldout, branching, ks))
        else:
            ways = options.ways.split(",")
            rows = list(
                against_flat(vectors, heldout, branching, ways, options.threads, options.device)
            )
        print(f"{len(vectors):,} vectors, {vectors.shape[1]} dimensions, {len(heldout):,} held out")
    print(machine_line() + "\n")
    print(table(list(rows[0]), [[shown(value) for value in row.values()] for row in rows]))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine_line(), "rows": rows}, indent=1))


def divide(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Vectors to cluster and vectors held out, drawn at random."""
    order = np.random.default_rng(0).permutation(len(vectors))
    count = min(HELDOUT, len(vectors) // 20)
    return vectors[np.sort(order[count:])], vectors[np.sort(order[:count])]


def against_flat(
    vectors: Vectors,
    heldout: Vectors,
    branching: tuple[int, ...],
    ways: list[str],
    threads: int,
    device: str,
) -> Iterator[dict[str, Any]]:
    """One row per way."""
    k = math.prod(branching)
    fit_sample(vectors[:1_000], branching=(4,), min_split=32, max_share=None, seed=0, device=device)
    for way in ways:  # no way's seconds hold the imports of its library
        if way == "tree":
            fitted, seconds = timed(
                lambda: fit_sample(
                    vectors,
                    branching=branching,
                    min_split=32,
                    max_share=None,
                    seed=0,
                    device=device,
                )
            )
            tree = fitted.tree
            if device == "cpu":
                descent: NumpyDescent | TorchDescent = NumpyDescent(tree.centroids, tree.parents)
            else:
                descent = TorchDescent(tree.centroids, tree.parents, device)
            leaves = tree.centroids[-1]
            yield measured(
                "tree, descent",
                seconds,
                vectors,
                heldout,
                leaves,
                units_of(descent, threads),
            )
            yield measured("tree, exact", seconds, vectors, heldout, leaves, nearest_of(leaves))
        elif way == "sklearn":
            from sklearn.cluster import MiniBatchKMeans

            kmeans = MiniBatchKMeans(k, batch_size=16_384, n_init=1, random_state=0)
            rows = as_float32(vectors)
            _, seconds = timed(lambda kmeans=kmeans, rows=rows: kmeans.fit(rows))
            centroids = kmeans.cluster_centers_
            yield measured(
                f"scikit-learn MiniBatchKMeans, k = {k:,}",
                seconds,
                vectors,
                heldout,
                centroids,
                nearest_of(centroids),
            )
        elif way == "faiss":
            import faiss

            faiss.omp_set_num_threads(threads)
            flat = faiss.Kmeans(vectors.shape[1], k, niter=25, spherical=True, seed=0)
            rows = as_float32(vectors)
            _, seconds = timed(lambda flat=flat, rows=rows: flat.train(rows))
            yield measured(
                f"faiss Kmeans, k = {k:,}",
                seconds,
                vectors,
                heldout,
                flat.centroids,
                lambda x, flat=flat: flat.index.search(as_float32(x), 1)[1][:, 0],
            )


def by_sample(
    vectors: Vectors, heldout: Vectors, branching: tuple[int, ...], sizes: list[int], device: str
) -> Iterator[dict[str, Any]]:
    """One row per size of the sample."""
    order = np.random.default_rng(1).permutation(len(vectors))
    for size in sizes:
        count = min(size * math.prod(branching), len(vectors))
        sample = vectors[np.sort(order[:count])]
        fitted, seconds = timed(
            lambda sample=sample: fit_sample(
                sample, branching=branching, min_split=32, max_share=None, seed=0, device=device
            )
        )
        descent = NumpyDescent(fitted.tree.centroids, fitted.tree.parents)
        seen, unseen = 2 * descent(sample)[1].mean(), 2 * descent(heldout)[1].mean()
        yield {
            "documents per leaf": size,
            "sample": count,
            "fit s": seconds,
            "distance of the sample": float(seen),
            "distance held out": float(unseen),
        } | balance(descent(vectors)[0], fitted.tree.num_leaves)


def by_view(
    vectors: Vectors, heldout: Vectors, branching: tuple[int, ...], ks: list[int]
) -> Iterator[dict[str, Any]]:
    """Two rows per number of domains: the view of the tree and as many clusters without a tree."""
    import faiss

    fitted = fit_sample(vectors, branching=branching, min_split=32, max_share=None, seed=0)
    descent = NumpyDescent(fitted.tree.centroids, fitted.tree.parents)
    leaf, heldout_leaf = descent(vectors)[0], descent(heldout)[0]
    rows, heldout_rows = as_float32(vectors), as_float32(heldout)
    by_leaf = np.argsort(leaf, kind="stable")
    for k in ks:
        cuts = np.sort(fitted.tree.split_order[: k - 1])
        label = np.searchsorted(cuts, leaf, side="right")
        begins = np.searchsorted(label[by_leaf], np.arange(k))
        means = unit(np.add.reduceat(rows[by_leaf], begins))
        flat = faiss.Kmeans(vectors.shape[1], k, niter=25, spherical=True, seed=0)
        flat.train(rows)
        nearest = nearest_of(flat.centroids)
        for way, centroids, labels, heldout_labels in (
            ("view of the tree", means, label, np.searchsorted(cuts, heldout_leaf, side="right")),
            ("faiss Kmeans", flat.centroids, nearest(vectors), nearest(heldout)),
        ):
            near = (heldout_rows * centroids[heldout_labels]).sum(axis=1)
            smallest = int(np.bincount(labels, minlength=k).min())
            yield {
                "way": way,
                "distance held out": float(2 - 2 * near.mean()),
                "smallest": smallest,
            } | balance(labels, k)


def measured(
    name: str,
    seconds: float,
    vectors: Vectors,
    heldout: Vectors,
    centroids: Vectors,
    assign: Assign,
) -> dict[str, Any]:
    """The row of one way."""
    own = unit(centroids[assign(heldout)])
    distance = 2 - 2 * (as_float32(heldout) * own).sum(axis=1).mean()
    best = math.inf
    for _ in range(ROUNDS):
        label, took = timed(lambda: assign(vectors))
        best = min(best, took)
    return {
        "way": name,
        "fit s": seconds,
        "distance held out": float(distance),
        "assigned/s": len(vectors) / best,
    } | balance(label, len(centroids))


def balance(label: NDArray[np.int64], k: int) -> dict[str, Any]:
    """Columns about the sizes of the clusters."""
    sizes = np.bincount(label, minlength=k)
    shares = sizes[sizes > 0] / sizes.sum()
    return {
        "clusters": k,
        "largest / mean": float(sizes.max() / sizes.mean()),
        "effective": float(np.exp(-(shares * np.log(shares)).sum())),
        "empty": int((sizes == 0).sum()),
    }


def units_of(descent: NumpyDescent | TorchDescent, threads: int) -> Assign:
    """Leaves as the units of a build find them: each with one thread, `threads` side by side."""

    def assign(vectors: Vectors) -> NDArray[np.int64]:
        units = [vectors[begin : begin + UNIT] for begin in range(0, len(vectors), UNIT)]
        with one_thread(), ThreadPoolExecutor(threads) as pool:
            return np.concatenate([leaf for leaf, _ in pool.map(descent, units)])

    return assign


def nearest_of(centroids: Vectors) -> Assign:
    """The nearest of all centroids, in blocks of rows."""
    transposed, half_norm = centroids.T, (centroids**2).sum(axis=1) / 2

    def assign(vectors: Vectors) -> NDArray[np.int64]:
        blocks = (vectors[begin : begin + BLOCK] for begin in range(0, len(vectors), BLOCK))
        found = [(as_float32(block) @ transposed - half_norm).argmax(axis=1) for block in blocks]
        return np.concatenate(found)

    return assign


def on_gpu(count: int, dim: int) -> Iterator[dict[str, Any]]:
    """Fit 64 x 64 x 64 on a sample of a mixture and assign all of it."""
    import torch

    from clustering.trees.fitting import sample_size

    branching = (64, 64, 64)
    generator = torch.Generator("cuda").manual_seed(0)
    vectors = mixture(count, dim, branching, generator)
    wanted = min(sample_size(branching), count)
    chosen = torch.arange(wanted, device="cuda") * count // wanted  # rows are in random order
    sample = vectors[chosen].cpu().numpy()
    fitted, seconds = timed(
        lambda: fit_sample(
            sample, branching=branching, min_split=8, max_share=None, seed=0, device="cuda"
        )
    )
    descent = TorchDescent(fitted.tree.centroids, fitted.tree.parents, "cuda")
    best = math.inf
    for _ in range(ROUNDS):
        (leaf, distance), took = timed(lambda: assign_all(descent, vectors))
        best = min(best, took)
    yield {
        "way": "torch, cuda",
        "sample": wanted,
        "fit s": seconds,
        "vectors": count,
        "assign s": best,
        "assigned/s": count / best,
        "distance": float(2 * distance.mean()),
    } | balance(leaf.cpu().numpy(), fitted.tree.num_leaves)


def assign_all(descent: TorchDescent, vectors: Any) -> tuple[Any, Any]:
    """Leaf and distance of all vectors on the card."""
    import torch

    blocks = [descent.place(block) for block in vectors.split(GPU_BLOCK)]
    leaf, distance = (torch.cat(column) for column in zip(*blocks, strict=True))
    torch.cuda.synchronize()
    return leaf, distance


def mixture(count: int, dim: int, branching: tuple[int, ...], generator: Any) -> Any:
    """Unit vectors float16 (count, dim) on the card around a tree of directions, in random order."""
    import torch

    def noise(*shape: int) -> Any:
        return torch.randn(shape, device="cuda", generator=generator) / dim**0.5

    centers = noise(branching[0], dim)
    for children in branching[1:]:
        centers = (centers[:, None] + 0.8 * noise(len(centers), children, dim)).view(-1, dim)
    vectors = torch.empty((count, dim), dtype=torch.float16, device="cuda")
    for block in vectors.split(GPU_BLOCK):
        center = torch.randint(len(centers), (len(block),), device="cuda", generator=generator)
        points = centers[center] + 0.8 * noise(*block.shape)
        block.copy_(torch.nn.functional.normalize(points, dim=1))
    return vectors


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and its seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def shown(value: Any) -> str:
    """A number as a table shows it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
