"""Oracles of chapter 06."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import weight_standardize
from ._check import exercise


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _filters() -> list[tuple]:
    return [(_random(*s, seed=i), _random(*s, seed=i + 9)) for i, s in enumerate([(1, 2), (4, 9), (3, 27)])]


@exercise("ws_gradient", _filters)
def ws_gradient(weight: Tensor, gradient: Tensor) -> Tensor:
    """∂L/∂W from ∂L/∂Ŵ, both (filters, I), by autograd."""
    weight = weight.clone().requires_grad_()
    return torch.autograd.grad(weight_standardize(weight), weight, gradient)[0]


def _layers() -> list[tuple]:
    return [(_random(3, n, seed=n), _random(5, n, seed=n + 1).relu()) for n in (2, 8, 64)]


@exercise("centered_product", _layers)
def centered_product(weight: Tensor, x: Tensor) -> Tensor:
    """x (N, I) times the transpose of the weights (C, I) after Eq. 11: (N, C)."""
    return F.linear(x, weight - weight.mean(1, keepdim=True))


def _micro_batches() -> list[tuple]:
    cases = []
    for seed, (samples, rate) in enumerate(((1, 0.1), (2, 0.5), (2, 0.0))):
        x = _random(samples, 3, seed=seed) + 2
        cases.append((x, _random(3, seed=seed + 5), _random(3, seed=seed + 6).square() + 0.5, rate))
    return cases


@exercise("estimate_norm", _micro_batches)
def estimate_norm(x: Tensor, mean: Tensor, var: Tensor, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, C) normalized by the updated estimates, and these: mean and var, both (C,); ε = 1e-5."""
    new_mean = torch.lerp(mean, x.mean(0), rate)
    new_var = torch.lerp(var, F.mse_loss(x, mean.expand_as(x), reduction="none").mean(0), rate)
    return F.batch_norm(x, new_mean, new_var, training=False, eps=1e-5), new_mean, new_var


@exercise("growth", lambda: [(0.0,), (1.0,), (0.5,), (-1.0,)])
def growth(mean: float) -> float:
    """E[φ′(z)²] / Var φ(z) of φ(z) = max(z + mean, 0), z standard normal."""
    above = math.erfc(-mean / math.sqrt(2)) / 2
    density = math.exp(-(mean**2) / 2) / math.sqrt(2 * math.pi)
    variance = above * (1 + mean**2) + mean * density - (mean * above + density) ** 2
    return above / variance
