"""Oracles of chapter 02."""

import torch
import torch.nn.functional as F
from torch import nn

from ._check import exercise


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise("bn_gradient", lambda: [(_random(n, seed=n), _random(n, seed=n + 50)) for n in (2, 3, 16)])
def bn_gradient(x, dy):
    """∂L/∂x through torch's Batch Norm of one channel, by autograd."""
    x = x.clone().requires_grad_()
    y = F.batch_norm(x[:, None], None, None, training=True, eps=1e-5)
    return torch.autograd.grad(y[:, 0], x, dy)[0]


@exercise("running_after", lambda: [([_random(n, seed=i) for i in range(4)], a) for n, a in ((2, 0.1), (8, 0.5))])
def running_after(batches, momentum):
    """What torch's layer holds after these batches."""
    layer = nn.BatchNorm1d(1, momentum=momentum).double()
    for batch in batches:
        layer(batch[:, None])
    return layer.running_mean[0], layer.running_var[0]


def _fold_case(seed: int):
    positive = _random(3, seed=seed + 5).square() + 0.1
    return (*(_random(*s, seed=seed + i) for i, s in enumerate([(3, 4), (3,), (3,), (3,), (3,)])), positive, 1e-5)


@exercise("fold", lambda: [_fold_case(0), _fold_case(10)])
def fold(weight, bias, gamma, beta, mean, var, eps):
    """The folded layer, read off its action on 0 and on the unit vectors."""
    probes = torch.cat([torch.zeros(1, weight.shape[1]), torch.eye(weight.shape[1])]).to(weight.dtype)
    out = F.batch_norm(F.linear(probes, weight, bias), mean, var, gamma, beta, training=False, eps=eps)
    return (out[1:] - out[0]).T, out[0]
