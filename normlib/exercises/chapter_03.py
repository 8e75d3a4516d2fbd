"""Oracles of chapter 03."""

import math

import torch
from torch import Tensor

from .. import noise
from ._check import exercise


@exercise("noise_moments", lambda: [(1, 3.0), (2, 3.0), (8, 1.0), (32, 9.0)])
def noise_moments(n: int, kurtosis: float) -> tuple[float, float]:
    """Mean and variance of ξ_σ for n values of this kurtosis."""
    return noise.variance_moments(n, kurtosis)


@exercise("running_error", lambda: [(0.0, 4, 0.0), (0.9, 2, 0.0), (0.9, 8, 0.01), (0.99, 8, 0.01)])
def running_error(tau: float, m: int, drift: float) -> float:
    """Root mean square error, in deviations, of a settled running mean of a channel that drifts by `drift` per step."""
    return math.sqrt(noise.running_noise(tau) / m + (noise.running_lag(tau) * drift) ** 2)


def _maps() -> list[tuple]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 4, 3, 3, generator=generator, dtype=torch.float64)
    shared = torch.randn(50, 4, 1, 1, generator=generator, dtype=torch.float64)
    return [(x,), (x + 2 * shared,), (x[:, :, 0, 0].clone(),)]


@exercise("independent_values", _maps)
def independent_values(x: Tensor) -> Tensor:
    """k (C,) of activations (N, C, *)."""
    return noise.effective_values(x)
