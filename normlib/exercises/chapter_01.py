"""Oracles of chapter 01."""

import math

import torch
from torch import Tensor

from ._check import exercise


def _gains() -> list[tuple]:
    return [(0.0,), (0.01,), (0.2,), (1.0,)]


@exercise("leaky_gain", _gains)
def leaky_gain(slope: float) -> float:
    """Gain g of weights of variance g²/fan_in that keeps the mean square through a ReLU of this negative slope."""
    return math.sqrt(2 / (1 + slope**2))


def _steps() -> list[tuple]:
    generator = torch.Generator().manual_seed(1)
    cases = []
    for shape, rate, scale in (((4, 3), 0.1, 1.0), ((4, 3), 0.1, 8.0), ((1, 20), 2.0, 0.5)):
        weight, gradient = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        gradient -= (gradient * weight).sum(1, keepdim=True) / weight.square().sum(1, keepdim=True) * weight
        cases.append((weight, gradient, rate, scale))
    return cases


@exercise("step_from_scaled", _steps)
def step_from_scaled(weight: Tensor, gradient: Tensor, rate: float, scale: float) -> tuple[Tensor, float]:
    """One SGD step of a scale-invariant loss from scale · weight, and the rate that would have kept its direction.

    weight and gradient, both (out, in), belong together; the gradient at scale · weight is gradient / scale.
    """
    return scale * weight - rate * gradient / scale, scale**2 * rate


def _batches() -> list[tuple]:
    generator = torch.Generator().manual_seed(2)
    cases = []
    for shape, size, shift in (((2, 3), 1.0, 0.0), ((64, 5), 1.0, 3.0), ((7, 1), 1e-3, -1.0)):
        x = size * torch.randn(shape, generator=generator, dtype=torch.float64) + shift
        cases.append((x, 1e-5))
    return cases


@exercise("l1_batch_norm", _batches)
def l1_batch_norm(x: Tensor, eps: float) -> Tensor:
    """x (N, C) centered per channel and divided by √(π/2) times its mean absolute deviation, plus eps."""
    centered = x - x.mean(0)
    return centered / (math.sqrt(math.pi / 2) * centered.abs().mean(0) + eps)
