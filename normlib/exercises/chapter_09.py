"""Oracles of chapter 09."""

import torch

from .. import layers
from ._check import exercise


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pieces():
    """Means, biased variances and sizes of the pieces that a (N, C) tensor is cut into."""
    out = []
    for seed, sizes in enumerate(([4, 4], [1, 2, 5], [7])):
        parts = (3 * _random(sum(sizes), 3, seed=seed) + 10).split(sizes)
        means, variances = (torch.stack(t) for t in ([p.mean(0) for p in parts], [p.var(0, False) for p in parts]))
        out.append((means, variances, torch.tensor(sizes, dtype=torch.float64)))
    return out


@exercise("combine", _pieces)
def combine(means, variances, sizes):
    """Law of total variance, centered first."""
    share = (sizes / sizes.sum())[:, None]
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(0)


@exercise(
    "ghost_norm", lambda: [(2 * _random(8, 3, 2, 2) + 1, 2), (_random(6, 4, seed=1), 3), (_random(4, 2, 5, seed=2), 4)]
)
def ghost_norm(x, m):
    """normlib's Batch Norm over virtual batches."""
    return layers.BatchNorm(x.shape[1], affine=False, virtual_batch_size=m).double()(x)


def _gradients():
    weight = torch.stack([_random(5), 1e-6 * _random(5, seed=1), _random(5, seed=2), _random(5, seed=3)])
    gradient = torch.stack([_random(5, seed=4), _random(5, seed=5), 1e-3 * _random(5, seed=6), torch.zeros(5).double()])
    return [(gradient, weight, 0.01), (gradient, weight, 0.5)]


@exercise("clip_adaptively", _gradients)
def clip_adaptively(gradient, weight, limit):
    """Row by row, with the least weight norm that NFNets use, 1e-3."""
    rows = []
    for g, w in zip(gradient, weight, strict=True):
        most = limit * max(w.norm().item(), 1e-3)
        size = g.norm().item()
        rows.append(g * (most / size) if size > most else g)
    return torch.stack(rows)
