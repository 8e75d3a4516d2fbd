"""Group, Layer and Instance Norm: who is whom, and torch's channels-last fault."""

import pytest
import torch
from compare import assert_same, measure, normal, randomize
from torch import nn
from torch.nn import functional

from normlib.layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm

pytestmark = pytest.mark.usefixtures("one_thread")
C = 6
SHAPES = [(3, C, 4), (3, C, 4, 2), (2, C, 2, 3, 2)]


def same_function(one, other, shape):
    x, dy = normal(*shape), normal(*shape, seed=1)
    assert_same(measure(one.double(), x, dy), measure(other.double(), x, dy))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_many_groups_as_channels_is_instance_norm(shape):
    same_function(randomize(GroupNorm(C, C)), randomize(InstanceNorm(C)), shape)
    kind = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[len(shape)]
    same_function(randomize(InstanceNorm(C)), randomize(kind(C, affine=True)), shape)


@pytest.mark.parametrize("shape", [(3, C), *SHAPES], ids=str)
def test_one_group_is_layer_norm_over_everything(shape):
    same_function(randomize(GroupNorm(C, 1)), randomize(LayerNorm(C)), shape)
    same_function(LayerNorm(C, affine=False), nn.LayerNorm(shape[1:], elementwise_affine=False), shape)


def test_layer_norm_over_channels_alone_is_another_function():
    x = normal(2, C, 3, 3)
    channels_only = functional.layer_norm(x.movedim(1, -1), (C,)).movedim(-1, 1)
    assert (LayerNorm(C, affine=False).double()(x) - channels_only).abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_instance_norm_is_batch_norm_of_one_sample(shape):
    one = (1, *shape[1:])
    batch = BatchNorm(C, affine=False, track_running_stats=False)
    same_function(InstanceNorm(C, affine=False), batch, one)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torchs_group_norm(shape, groups):
    same_function(randomize(GroupNorm(C, groups)), randomize(nn.GroupNorm(groups, C)), shape)


def test_each_sample_by_itself_and_in_both_modes():
    layer, x = randomize(GroupNorm(C, 3)).double(), normal(4, C, 5)
    together = layer(x)
    assert_same({"y": torch.cat([layer(part) for part in x.split(1)])}, {"y": together})
    assert torch.equal(layer.eval()(x), together)
    assert layer(x[:0]).shape == (0, C, 5)


def test_gradient_as_derived():
    """(σ² + ε)^(−1/2) [g − ⟨g⟩ − x̂ ⟨g x̂⟩]"""
    layer, x, g = GroupNorm(C, 2, affine=False).double(), normal(3, C, 4), normal(3, C, 4, seed=1)
    seen, over = x.view(3, 2, -1), g.view(3, 2, -1)
    s = (seen.var(2, correction=0, keepdim=True) + layer.eps).sqrt()
    normalized = (seen - seen.mean(2, keepdim=True)) / s
    inner = over - over.mean(2, keepdim=True) - normalized * (over * normalized).mean(2, keepdim=True)
    assert_same({"dx": measure(layer, x, g)["dx"]}, {"dx": (inner / s).view_as(x)})


@pytest.mark.parametrize("shape", [(2, C, 8, 8), (2, C, 4, 4, 4)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, C])
def test_channels_last_with_a_large_mean(shape, groups):
    """torch's channels-last kernel is off by hundreds here: it takes E[x²] − E[x]²."""
    memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x = (normal(*shape) + 1e4).float().contiguous(memory_format=memory_format)
    layer = GroupNorm(C, groups)
    y = layer(x)
    assert y.is_contiguous(memory_format=memory_format)
    exact = layer.double()(x.double())
    assert (y.double() - exact).abs().max() < 4e-3  # neighbours are 2⁻¹⁰ apart at 1e4, and σ = 1


def test_channels_last_behind_frozen_layers():
    """Where x needs no gradient, torch's channels-last kernel ends the process on its way back (2.11)."""
    layer, x = GroupNorm(64, 8), normal(2, 64, 16, 16, dtype=torch.float32)
    found = []
    for given in (x, x.to(memory_format=torch.channels_last)):
        loss = layer(given).square().sum()
        found.append(dict(zip("wb", torch.autograd.grad(loss, layer.parameters()), strict=True)))
    assert_same(*found, 1e-5)


@pytest.mark.parametrize("affine", [True, False])
def test_many_flat_values_take_another_kernel_with_the_same_result(affine):
    layer, theirs = GroupNorm(96, 12, affine=affine), nn.GroupNorm(12, 96, affine=affine)
    if affine:
        theirs.load_state_dict(randomize(layer).state_dict())
    same_function(layer, theirs, (64, 96))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_many_flat_values_in_half_precision_are_rounded_once(dtype):
    layer = GroupNorm(64, 8)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    x, dy = (torch.randn(256, 64, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (1, 2))
    exact = nn.GroupNorm(8, 64).double()
    exact.load_state_dict(layer.state_dict())
    y, expected = layer(x), exact(x.double())
    assert ((y.double() - expected).abs() <= 1.01 * torch.finfo(dtype).eps * expected.abs().clamp(min=1e-3)).all()
    (slope,) = torch.autograd.grad(y, layer.weight, dy)
    (wanted,) = torch.autograd.grad(expected, exact.weight, dy.double())
    torch.testing.assert_close(slope.double(), wanted, rtol=1e-4, atol=1e-4)
