"""Oracles of chapter 05."""

import torch
import torch.nn.functional as F

from ._check import exercise


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _cases():
    return [(2 * _random(2, 6, 3, 3) + 5, 3), (_random(3, 4, 7, seed=1), 4), (_random(5, 8, seed=2), 1)]


@exercise("channels_only_layer_norm", lambda: [(x,) for x, _ in _cases()])
def channels_only_layer_norm(x):
    """torch's Layer Norm, with the channels moved to the end."""
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


@exercise("group_norm_from_batch_norm", _cases)
def group_norm_from_batch_norm(x, num_groups):
    """torch's Group Norm."""
    return F.group_norm(x, num_groups)


@exercise("layer_norm_gradients", lambda: [tuple(_random(*s, seed=n) for s in ((n, 6), (6,), (n, 6))) for n in (1, 4)])
def layer_norm_gradients(x, gamma, dy):
    """All three by autograd; γ is far from constant, so that its place matters."""
    leaves = [x.clone().requires_grad_(), gamma.clone().requires_grad_(), torch.zeros_like(gamma, requires_grad=True)]
    y = F.layer_norm(leaves[0], (x.shape[1],), leaves[1], leaves[2], eps=1e-5)
    return torch.autograd.grad(y, leaves, dy)
