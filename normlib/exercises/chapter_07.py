"""Oracles of chapter 07, and three Momentum Batch Norm layers with a mistake each."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from ..layers import MomentumBatchNorm
from ..schedules import inference_tau, momentum_lambda
from ._check import exercise


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise(
    "lambda_and_tau",
    lambda: [(50, 200, 4, 32, 0.9), (100, 200, 2, 32, 0.9), (250, 200, 8, 32, 0.85), (7, 20, 64, 32, 0.9)],
)
def lambda_and_tau(t, T, m, m0, tau0):
    """λ(t) and τ."""
    return momentum_lambda(t, T, m, m0), inference_tau(m, m0, tau0)


@exercise("average_variance", lambda: [(4, 0.0, 5), (2, 0.5, 1), (4, 0.875, 20), (16, 0.5, 7)])
def average_variance(m, lam, K):
    """Variance of the average of K consecutive settled means: the mean of their K × K covariances."""
    steps = torch.arange(K)
    correlations = torch.tensor(lam, dtype=torch.float64) ** (steps[:, None] - steps).abs()
    return float(correlations.mean()) * (1 - lam) / (1 + lam) / m


@exercise(
    "mbn_backward",
    lambda: [
        (_random(6, 3) + 1, _random(6, 3, seed=1), _random(3, seed=2), _random(3, seed=3), _random(3).abs() + 1, lam)
        for lam in (0.0, 0.5, 0.9375)
    ],
)
def mbn_backward(x, dy, gamma, h_mean, h_var, lam):
    """∂L/∂x, ∂L/∂γ, ∂L/∂β by autograd."""
    x, gamma, beta = (t.clone().requires_grad_() for t in (x, gamma, torch.zeros_like(gamma)))
    mean = lam * h_mean + (1 - lam) * x.mean(0)
    var = lam * h_var + (1 - lam) * x.var(0, correction=0)
    y = gamma * (x - mean) / (var + 1e-5).sqrt() + beta
    return torch.autograd.grad(y, (x, gamma, beta), dy)


class Suspect(nn.Module):
    """What the three layers share: the parameters and buffers of `MomentumBatchNorm`, inputs of shape (N, C)."""

    def __init__(self, num_features: int, momentum_lambda: float = 0.75, tau: float = 0.9):
        super().__init__()
        self.eps, self.momentum_lambda, self.tau = 1e-5, momentum_lambda, tau
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        for name in ("running", "momentum"):
            self.register_buffer(f"{name}_mean", torch.zeros(num_features))
            self.register_buffer(f"{name}_var", torch.ones(num_features))

    def normalize(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias

    @torch.no_grad()
    def keep(self, name: str, mean: Tensor, var: Tensor, share: float) -> None:
        getattr(self, f"{name}_mean").lerp_(mean, share)
        getattr(self, f"{name}_var").lerp_(var, share)


class SuspectA(Suspect):
    def forward(self, x):
        if not self.training:
            return self.normalize(x, self.running_mean, self.running_var)
        lam = self.momentum_lambda
        batch = x.mean(0), x.var(0, correction=0)
        with torch.no_grad():
            mean = lam * self.momentum_mean + (1 - lam) * batch[0]
            var = lam * self.momentum_var + (1 - lam) * batch[1]
        self.keep("momentum", *batch, 1 - lam)
        self.keep("running", *batch, 1 - self.tau)
        return self.normalize(x, mean, var)


class SuspectB(Suspect):
    def forward(self, x):
        if not self.training:
            return self.normalize(x, self.running_mean, self.running_var)
        lam = self.momentum_lambda
        batch = x.mean(0), x.var(0, correction=0)
        mean = (1 - lam) * self.momentum_mean + lam * batch[0]
        var = (1 - lam) * self.momentum_var + lam * batch[1]
        self.keep("momentum", *batch, lam)
        self.keep("running", *batch, 1 - self.tau)
        return self.normalize(x, mean, var)


class SuspectC(Suspect):
    def forward(self, x):
        if not self.training:
            return self.normalize(x, self.running_mean, self.running_var)
        lam = self.momentum_lambda
        batch = x.mean(0), x.var(0, correction=0)
        mean = lam * self.momentum_mean + (1 - lam) * batch[0]
        var = lam * self.momentum_var + (1 - lam) * batch[1]
        self.keep("momentum", *batch, 1 - lam)
        self.keep("running", mean, var, 1 - self.tau)
        return self.normalize(x, mean, var)


def _right(channels: int, lam: float = 0.75, tau: float = 0.9) -> MomentumBatchNorm:
    layer = MomentumBatchNorm(channels, 4)
    layer.momentum_lambda, layer.tau = lam, tau
    return layer


@exercise("passes_mbn", lambda: [(kind(3).double(),) for kind in (SuspectA, SuspectB, SuspectC, _right)])
def passes_mbn(layer):
    """Which of the exercise's three tests a layer passes, found by comparison with normlib's layer."""
    x, dy = 2 * _random(6, 3) + 1, _random(6, 3, seed=1)
    state = {"weight": _random(3, seed=2), "bias": _random(3, seed=3)}
    for name, seed in (("running", 4), ("momentum", 6)):
        state |= {f"{name}_mean": _random(3, seed=seed), f"{name}_var": _random(3, seed=seed + 1).abs() + 1}
    results = []
    layer = deepcopy(layer)
    for each in (layer, _right(3, layer.momentum_lambda, layer.tau).double()):
        each.load_state_dict(state, strict=False)
        leaf = x.clone().requires_grad_()
        y = each.train()(leaf)
        averages = torch.stack([each.running_mean, each.running_var])
        results.append((y, torch.autograd.grad(y, leaf, dy)[0], averages))
    return torch.tensor([torch.allclose(ours, theirs) for ours, theirs in zip(*results, strict=True)])
