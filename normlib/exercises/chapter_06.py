"""Oracles of chapter 06."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import weight_standardize
from ._check import exercise


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise("ws_jacobian", lambda: [(_random(n, seed=n),) for n in (2, 9, 27)])
def ws_jacobian(w: Tensor) -> Tensor:
    """∂ŵ/∂w (I, I) of one filter w (I,), by autograd."""
    return torch.autograd.functional.jacobian(lambda v: weight_standardize(v[None])[0], w)


def _layers() -> list[tuple]:
    return [(_random(3, n, seed=n), _random(5, n, seed=n + 1).relu()) for n in (2, 8, 64)]


@exercise("centered_product", _layers)
def centered_product(weight: Tensor, x: Tensor) -> Tensor:
    """x (N, I) times the transpose of the weights (C, I) after Eq. 11: (N, C)."""
    return F.linear(x, weight - weight.mean(1, keepdim=True))


@exercise("variance_factor", lambda: [(0.1, 1), (0.5, 2), (1.0, 1)])
def variance_factor(rate: float, m: int) -> float:
    """Expected squared distance of a sample from the running mean, for variance 1, by the mean's weights in full."""
    weights = [rate * (1 - rate) ** age for age in range(1000)]  # of the batches, latest first
    return 1 + sum(w * w for w in weights) / m


@exercise("growth", lambda: [(0.0,), (1.0,), (0.5,), (-1.0,)])
def growth(mean: float) -> float:
    """E[φ′(z)²] / Var φ(z) of φ(z) = max(z + mean, 0), z standard normal."""
    above = math.erfc(-mean / math.sqrt(2)) / 2
    density = math.exp(-(mean**2) / 2) / math.sqrt(2 * math.pi)
    variance = above * (1 + mean**2) + mean * density - (mean * above + density) ** 2
    return above / variance
