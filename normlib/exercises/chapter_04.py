"""Oracles of chapter 04, and three Batch Renorm layers with a mistake each, re-made from the history of public code."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from ..layers import BatchRenorm
from ._check import exercise


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise(
    "renorm_step",
    lambda: [(3 * _random(8, 2, seed=m) + 1, _random(2, seed=m), _random(2).abs() + 1, 1.5, 0.5, m) for m in (8, 4, 2)],
)
def renorm_step(x, mu, sigma, r_max, d_max, m):
    """r and d of every virtual batch, and the averages after the step."""
    parts = x.split(m)
    deviations = torch.stack([(part.var(0, correction=0) + 1e-5).sqrt() for part in parts])
    means = torch.stack([part.mean(0) for part in parts])
    r = torch.minimum(torch.maximum(deviations / sigma, sigma.new_tensor(1 / r_max)), sigma.new_tensor(r_max))
    d = torch.minimum(torch.maximum((means - mu) / sigma, sigma.new_tensor(-d_max)), sigma.new_tensor(d_max))
    return r, d, 0.99 * mu + 0.01 * means.mean(0), 0.99 * sigma + 0.01 * deviations.mean(0)


class Suspect(nn.Module):
    """What the three layers share: parameters and buffers of `normlib.layers.BatchRenorm`, inputs of shape (N, C)."""

    def __init__(self, num_features: int, r_max: float = 3.0, d_max: float = 5.0):
        super().__init__()
        self.eps, self.momentum, self.r_max, self.d_max = 1e-5, 0.01, r_max, d_max
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_std", torch.ones(num_features))

    def evaluate(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) / self.running_std * self.weight + self.bias

    def corrections(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        r = (std / self.running_std).clamp(1 / self.r_max, self.r_max)
        d = ((mean - self.running_mean) / self.running_std).clamp(-self.d_max, self.d_max)
        return r.detach(), d.detach()

    @torch.no_grad()
    def update(self, mean: Tensor, std: Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_std.lerp_(std, self.momentum)


class SuspectA(Suspect):
    def forward(self, x):
        if not self.training:
            return self.evaluate(x)
        mean, var = x.mean(0), x.var(0, correction=0)
        std = (var + self.eps).sqrt()
        r, d = self.corrections(mean, std)
        self.update(mean, std)
        y = (x - mean) / std * self.weight + self.bias
        return y * r + d


class SuspectB(Suspect):
    def forward(self, x):
        if not self.training:
            return self.evaluate(x)
        mean, var = x.mean(0), x.var(0, correction=0)
        std = (var + self.eps).sqrt()
        r, d = self.corrections(mean, std)
        self.update(mean, var)
        x_hat = (x - mean) / std * r + d
        return x_hat * self.weight + self.bias


class SuspectC(Suspect):
    def forward(self, x):
        if not self.training:
            return self.evaluate(x)
        with torch.no_grad():
            mean, var = x.mean(0), x.var(0, correction=0)
            std = (var + self.eps).sqrt()
            r, d = self.corrections(mean, std)
        self.update(mean, std)
        x_hat = (x - mean) / std * r + d
        return x_hat * self.weight + self.bias


@exercise("passes", lambda: [(kind(3).double(),) for kind in (SuspectA, SuspectB, SuspectC, BatchRenorm)])
def passes(layer):
    """Which of the exercise's three tests a layer passes, found by comparison with normlib's layer."""
    x, dy = 2 * _random(6, 3) + 1, _random(6, 3, seed=1)
    state = {"weight": _random(3, seed=2), "bias": _random(3, seed=3)}
    state |= {"running_mean": _random(3, seed=4), "running_std": _random(3, seed=5).abs() + 1}
    right = BatchRenorm(3, r_max=1e9, d_max=1e9).double()
    layer = deepcopy(layer)
    layer.r_max = layer.d_max = 1e9
    results = []
    for each in (layer, right):
        each.load_state_dict(state, strict=False)
        leaf = x.clone().requires_grad_()
        y = each.train()(leaf)
        results.append((y, torch.autograd.grad(y, leaf, dy)[0], each.running_std))
    return torch.tensor([torch.allclose(ours, theirs) for ours, theirs in zip(*results, strict=True)])


@exercise("clipped_share", lambda: [(m, r_max) for m in (2, 4, 16) for r_max in (1.1, 3.0)])
def clipped_share(m, r_max):
    """P(r < 1/r_max or r > r_max) for m independent normal values, σ at its settled value."""
    from scipy import special  # not stats, whose import takes a second

    settled = 2**0.5 * special.gamma(m / 2) / special.gamma((m - 1) / 2)  # 𝔼 of chi with m − 1 degrees of freedom
    half = (m - 1) / 2
    return special.gammainc(half, (settled / r_max) ** 2 / 2) + special.gammaincc(half, (settled * r_max) ** 2 / 2)
