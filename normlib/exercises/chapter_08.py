"""Oracles of chapter 08, and its bug museum: a Batch Norm with one of seven mistakes known from public code."""

import math

import torch
from torch import Tensor, nn

from ._check import exercise

# In the order of the numbers that the exercise asks for.
MISTAKES = (
    "none",
    "statistics without gradient",
    "evaluation on the training path",
    "variance for deviation at evaluation",
    "averages of the normalized output",
    "averages that never move",
    "averages that are not buffers",
    "E[x²] − E[x]² as variance",
)


class Exhibit(nn.Module):
    """Batch Norm of inputs (N, C), with parameters and averages as in `normlib.layers.BatchNorm`, and a mistake.

    Args:
        num_features: C.
        mistake: one of `MISTAKES`.
        letter: shown in place of the mistake.

    Raises:
        ValueError: another mistake.
    """

    def __init__(self, num_features: int, mistake: str = "none", letter: str = ""):
        super().__init__()
        if mistake not in MISTAKES:
            raise ValueError(f"mistake must be one of {', '.join(MISTAKES)}, got {mistake!r}")
        self._mistake, self.letter = MISTAKES.index(mistake), letter
        self.eps, self.momentum = 1e-5, 0.1
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        averages = {"running_mean": torch.zeros(num_features), "running_var": torch.ones(num_features)}
        for name, value in averages.items():
            if self._mistake == 6:
                setattr(self, name, value)
            else:
                self.register_buffer(name, value)

    def __repr__(self):
        return f"exhibit {self.letter}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self._mistake != 2:
            var = self.running_var + self.eps
            scale = var if self._mistake == 3 else var.sqrt()
            return (x - self.running_mean) / scale * self.weight + self.bias
        mean, var = self._moments(x.detach() if self._mistake == 1 else x)
        x_hat = (x - mean) / (var + self.eps).sqrt()
        if self.training:
            self._update((x_hat if self._mistake == 4 else x).detach())
        return x_hat * self.weight + self.bias

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(0)
        if self._mistake == 7:
            return mean, x.square().mean(0) - mean.square()
        return mean, (x - mean).square().mean(0)

    def _update(self, x: Tensor) -> None:
        mean, var = self._moments(x)
        rate = 0.0 if self._mistake == 5 else self.momentum
        unbiased = var * (len(x) / (len(x) - 1))
        self.running_mean.copy_((1 - rate) * self.running_mean + rate * mean)
        self.running_var.copy_((1 - rate) * self.running_var + rate * unbiased)


def exhibits(num_features: int = 4) -> list[Exhibit]:
    """One layer per entry of `MISTAKES`, in an order of their own, known by letters."""
    order = (4, 0, 6, 1, 7, 3, 5, 2)
    return [Exhibit(num_features, MISTAKES[k], letter) for k, letter in zip(order, "ABCDEFGH", strict=True)]


@exercise("diagnose", lambda: [(exhibit,) for exhibit in exhibits()])
def diagnose(layer):
    """The number of the exhibit's mistake."""
    return layer._mistake


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise(
    "flow_gradient",
    lambda: [
        (2 * _random(m, 3, seed=m) + 1, _random(m, 3, seed=9), _random(3), _random(3).square() + 1, lam, flow)
        for m, lam in ((8, 0.75), (4, 0.0))
        for flow in ("whole", "share", "none")
    ],
)
def flow_gradient(x, g, mean, var, lam, flow):
    """∂L/∂x of the blend, by autograd through the general form."""
    x = x.clone().requires_grad_()
    mean_b, var_b = x.mean(0), x.var(0, correction=0)
    mu, s = torch.lerp(mean_b, mean, lam), (torch.lerp(var_b, var, lam) + 1e-5).sqrt()
    if flow == "none":
        mu, s = mu.detach(), s.detach()
    x_hat = (x - mu) / s
    if flow == "whole":
        s_b = (var_b + 1e-5).sqrt()
        x_hat = (x - mean_b) / s_b * (s_b / s).detach() + ((mean_b - mu) / s).detach()
    return torch.autograd.grad(x_hat, x, g)[0]


@exercise(
    "flattery", lambda: [(k, seeds, deviation) for k, seeds, deviation in ((2, 5, 1.0), (3, 5, 2.0), (6, 10, 1.0))]
)
def flattery(k, seeds, deviation):
    """𝔼 of the largest of k means of `seeds` normal values each: ∫ z d Φ(z)^k, scaled."""
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    largest = torch.trapezoid(z * k * torch.special.ndtr(z) ** (k - 1) * density, z)
    return largest * deviation / math.sqrt(seeds)
