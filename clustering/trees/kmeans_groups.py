"""Spherical k-means of many groups of vectors at once, in plain torch.

The nodes of one level of a tree are clustered side by side: (groups, rows, dim) against (groups, k, dim), so
that a GPU has enough to do although every node is small. One group is an ordinary k-means. Every sum is a
matrix product, never an atomic addition, so equal input and seed give equal centroids on the same device.

Vectors have unit norm: the nearest centroid is the one of the highest cosine, and the squared distance to it
is 2 - 2 cos.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 4
"""Starting points tried per centroid (greedy k-means++, as in scikit-learn)."""
MAX_STEPS = 25
TOLERANCE = 1e-4
"""Lloyd's steps end when the mean cosine gains less than this share of what is missing to 1."""
MAX_ROUNDS = 24
MOVES_PER_ROUND = 8
STEPS_PER_ROUND = 3
SPLIT = 0.1
"""A large cluster is cut across the line from its centroid to one of its vectors, this share of the way to
both sides. A centroid at the vector itself would win hardly any other in many dimensions."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Vectors of g groups, padded to the same number of rows."""

    vectors: Tensor
    """float32 (g, m, dim): unit norm, zero where a group has fewer rows."""
    rows: Tensor
    """int64 (g,): rows of each group."""
    children: Tensor
    """int64 (g,): centroids that each group gets, 1 <= children <= rows."""

    @property
    def present(self) -> Tensor:
        """bool (g, m): what is a row and not padding."""
        positions = torch.arange(self.vectors.shape[1], device=self.vectors.device)
        return positions < self.rows[:, None]

    @property
    def active(self) -> Tensor:
        """bool (g, k): what is a centroid and not padding."""
        positions = torch.arange(int(self.children.max()), device=self.vectors.device)
        return positions < self.children[:, None]


def fit_groups(groups: Groups, *, seed: int) -> Tensor:
    """Centroids by greedy k-means++ (Arthur, Vassilvitskii 2007) and Lloyd's steps: float32 (g, k, dim)."""
    generator = torch.Generator(groups.vectors.device).manual_seed(seed)
    centroids = _start(groups, generator)
    before = -1.0
    for _ in range(MAX_STEPS):
        label, cosine = nearest(groups, centroids)
        mean = float(cosine.sum() / groups.rows.sum())
        if mean - before < TOLERANCE * (1 - mean):
            break
        before = mean
        centroids = _means(groups, label, centroids)
    return centroids


def balance_groups(groups: Groups, centroids: Tensor, limits: Tensor, *, seed: int) -> Tensor:
    """Take centroids from the smallest clusters into those above their limit, until none is, if that can be.

    Both centroids start beside the one of the large cluster and Lloyd's steps settle them, so every vector
    still belongs to its nearest centroid. The state with the least excess is returned.

    Args:
        groups: The vectors.
        centroids: float32 (g, k, dim), unit norm.
        limits: int64 (g,): rows that a cluster may have.
        seed: Decides which vector of a large cluster becomes a centroid.
    """
    generator = torch.Generator(groups.vectors.device).manual_seed(seed)
    best, best_excess = centroids, torch.full_like(limits, torch.iinfo(torch.int64).max)
    for round_ in range(MAX_ROUNDS):
        # Lloyd's steps undo some splits of a dense cluster; fewer of them leave more standing.
        for _ in range(STEPS_PER_ROUND if 2 * round_ < MAX_ROUNDS else 1):
            label, _ = nearest(groups, centroids)
            centroids = _means(groups, label, centroids)
        label, _ = nearest(groups, centroids)
        sizes = _sizes(groups, label)
        excess = (sizes - limits[:, None]).clamp(min=0).sum(dim=1)
        # An empty cluster counts as one row too many: it has to move, too.
        excess += ((sizes == 0) & groups.active).sum(dim=1)
        better = excess < best_excess
        best = torch.where(better[:, None, None], centroids, best)
        best_excess = torch.where(better, excess, best_excess)
        if not bool(best_excess.any()):
            break
        centroids = _moved(groups, centroids, label, sizes, limits, generator)
    return best


def nearest(groups: Groups, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Index of each row's nearest centroid, int64 (g, m), and its cosine, float32 (g, m); 0 for padding."""
    cosine = torch.bmm(groups.vectors, centroids.transpose(1, 2))
    cosine.masked_fill_(~groups.active[:, None, :], -2.0)
    best, label = cosine.max(dim=2)
    return label, best.masked_fill_(~groups.present, 0.0)


def _start(groups: Groups, generator: torch.Generator) -> Tensor:
    vectors, present = groups.vectors, groups.present
    num_groups, _, dim = vectors.shape
    every = torch.arange(num_groups, device=vectors.device)
    k = int(groups.children.max())
    centroids = vectors.new_zeros((num_groups, k, dim))
    distance = present.float()
    for child in range(k):
        # The largest of log(u) / weight are a sample by weight (Efraimidis and Spirakis 2006).
        keys = torch.rand(distance.shape, generator=generator, device=vectors.device).log()
        tried = min(CANDIDATES, distance.shape[1]) if child else 1
        keys = (keys / distance.clamp(min=1e-12)).masked_fill_(~present, -torch.inf)
        candidates = keys.topk(tried, dim=1).indices
        points = vectors[every[:, None], candidates]
        new = (1.0 - torch.bmm(vectors, points.transpose(1, 2))).clamp_(min=0.0)
        new = torch.minimum(new, distance[:, :, None]) if child else new
        new.masked_fill_(~present[:, :, None], 0.0)
        chosen = new.sum(dim=1).argmin(dim=1)
        centroids[:, child] = points[every, chosen]
        distance = new[every, :, chosen]
    return centroids


def _means(groups: Groups, label: Tensor, centroids: Tensor) -> Tensor:
    """Unit means of the clusters; an empty one stays where it is."""
    member = groups.vectors.new_zeros((*label.shape, centroids.shape[1]))
    member.scatter_(2, label[:, :, None], 1.0)
    sums = torch.bmm(member.transpose(1, 2), groups.vectors)
    return torch.where((sums != 0).any(dim=2, keepdim=True), _unit(sums), centroids)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _sizes(groups: Groups, label: Tensor) -> Tensor:
    """Rows of each cluster: int64 (g, k)."""
    k = groups.active.shape[1]
    sizes = torch.zeros((len(label), k + 1), dtype=torch.int64, device=label.device)
    sizes.scatter_add_(1, label.masked_fill(~groups.present, k), torch.ones_like(label))
    return sizes[:, :k]


def _moved(
    groups: Groups,
    centroids: Tensor,
    label: Tensor,
    sizes: Tensor,
    limits: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Centroids after the j-th smallest cluster of each group has joined its j-th largest, for a few j."""
    every = torch.arange(len(label), device=label.device)
    moves = min(MOVES_PER_ROUND, sizes.shape[1] // 2)
    from_large = sizes.masked_fill(~groups.active, -1).argsort(dim=1, descending=True)
    from_small = sizes.masked_fill(~groups.active, torch.iinfo(torch.int64).max).argsort(dim=1)
    centroids = centroids.clone()
    for move in range(moves):
        large, small = from_large[:, move], from_small[:, move]
        size, smallest = sizes[every, large], sizes[every, small]
        keys = torch.rand(label.shape, generator=generator, device=label.device)
        inside = (label == large[:, None]) & groups.present
        row = keys.masked_fill(~inside, -1.0).argmax(dim=1)
        worth = ((size > limits) & (2 * smallest < size)) | ((smallest == 0) & (size > 1))
        whole, other = centroids[every, large], centroids[every, small]
        aside = SPLIT * (groups.vectors[every, row] - whole)
        centroids[every, small] = torch.where(worth[:, None], _unit(whole + aside), other)
        centroids[every, large] = torch.where(worth[:, None], _unit(whole - aside), whole)
    return centroids
