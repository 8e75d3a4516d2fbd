"""Group, Layer and Instance Norm: who is whom, and what torch's channels-last kernel must not be given."""

import copy
import itertools
import math

import pytest
import torch
from compare import assert_same, by_kernel, measure, normal, randomize
from torch import nn
from torch.nn import functional

from normlib.layers import BatchChannelNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from normlib.layers.group_norm import group_normalize

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


LAST = [(2, C, 8, 8), (2, C, 4, 4, 4), (1, C, 3, 1), (3, C, 1, 5)]


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


@pytest.mark.parametrize("mean", [0, 1.5, 1e4])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, C])
@pytest.mark.parametrize("shape", LAST, ids=str)
def test_channels_last(monkeypatch, shape, groups, affine, mean):
    """Where torch's kernel for them is near its bounds, and, a large mean, beyond."""
    by_kernel(monkeypatch)
    layer = randomize(GroupNorm(C, groups, affine=affine)).double()
    x, dy = normal(*shape) + mean, normal(*shape, seed=1)
    expected = measure(layer, x, dy)
    for order in (channels_last, torch.Tensor.contiguous):
        got = measure(layer, channels_last(x), order(dy))
        assert got["y"].is_contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
        assert_same(got, expected, 1e-11 if mean < 1e4 else 1e-8)
    even = torch.tensor(1.0, dtype=torch.float64).expand(shape)  # as behind y.sum(): one value, seen many times
    assert_same(measure(layer, channels_last(x), even), measure(layer, x, even.contiguous()), 1e-8)


@pytest.mark.parametrize("length", [1, 4])
def test_channels_last_by_another_stride(monkeypatch, length):
    """A dimension of size 1 may have any; torch's kernel knows the memory order by one of them only."""
    by_kernel(monkeypatch)
    layer = randomize(GroupNorm(C, 2)).double()
    x, dy = (normal(2, length, C, seed=s).transpose(1, 2).unsqueeze(-1) for s in range(2))
    expected = measure(layer, x.contiguous(), dy.contiguous())
    for given in (x, channels_last(x.contiguous())):
        assert_same(measure(layer, given, dy), expected)


@pytest.mark.parametrize("shape", [(2, 64, 32, 32), (4, 16, 4, 16, 16)], ids=str)
@pytest.mark.parametrize("mean", [0, 1.9, 2.5, 1e4])
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_last_loses_two_digits_at_most(shape, groups, mean):
    """torch's kernel is off by hundreds at 10⁴: it takes E[x²] − E[x]²."""
    x = (normal(*shape) + mean).float()
    layer = randomize(GroupNorm(shape[1], groups))
    y = layer(channels_last(x))
    exact = copy.deepcopy(layer).double()(x.double())
    assert (y.double() - exact).abs().max() < (2e-5 if mean < 1e4 else 4e-3)  # neighbours are 2⁻¹⁰ apart at 1e4; σ = 1


@pytest.mark.parametrize("side", [32, 128])
@pytest.mark.parametrize("share", [1 / 16, 1 / 4, 1 / 2])
def test_one_value_repeated(side, share):
    """A background, where rounding goes one way: of 128² positions torch's kernel loses five digits."""
    x = torch.full((1, 64, side, side), 0.1)
    x[:, :, : int(side * share)] = 0
    assert_same({"y": GroupNorm(64, 8)(channels_last(x))}, {"y": GroupNorm(64, 8).double()(x.double())}, 1e-4)


@pytest.mark.parametrize("groups", [1, 8])
def test_parameters_of_any_stride(groups):
    """The kernel reads them value after value; of one group's affine, repeated for each channel, there is one value."""
    x = normal(4, 64, 16, 16, dtype=torch.float32)
    layer = randomize(BatchChannelNorm(64, groups)).eval()
    assert_same({"y": layer(channels_last(x))}, {"y": layer(x)}, 1e-5)
    layer = GroupNorm(64, groups)
    for weight in (normal(64, 2, dtype=torch.float32)[:, 0], torch.full((1,), 2.0).expand(64)):
        found = []
        for given in (channels_last(x), x):
            leaf = weight.detach().requires_grad_()
            y = torch.func.functional_call(layer, {"weight": leaf}, (given,))
            found.append({"y": y.detach(), "dw": torch.autograd.grad(y.square().sum(), leaf)[0]})
        assert_same(*found, 1e-5)


def test_beta_may_change_before_the_backward_pass():
    """As with torch's: no gradient depends on it."""
    layer = GroupNorm(64, 8)
    y = layer(channels_last(normal(4, 64, 16, 16, dtype=torch.float32)).requires_grad_())
    with torch.no_grad():
        layer.bias.add_(1)
    y.sum().backward()


@pytest.mark.parametrize(
    "layer", [GroupNorm(64, 8), BatchNorm(64), BatchChannelNorm(64, 8)], ids=lambda layer: type(layer).__name__
)
def test_one_graph_for_large_channels_last_inputs(layer):
    torch.compiler.reset()
    x = channels_last(normal(8, 64, 32, 32, dtype=torch.float32))
    if not isinstance(layer, BatchNorm):  # whose evaluation chooses no kernel
        layer.eval()
    compiled = torch.compile(copy.deepcopy(layer), backend=lambda graph, inputs: graph.forward, fullgraph=True)
    assert_same({"y": compiled(x)}, {"y": layer(x)}, 1e-5)


def test_channels_last_in_large_planes():
    """Of so many positions, summed one after another in float32, torch's kernel would lose three digits."""
    x = normal(1, 8, 500, 500, dtype=torch.float32) + 1
    assert_same({"y": GroupNorm(8, 1)(channels_last(x))}, {"y": GroupNorm(8, 1).double()(x.double())}, 2e-6)


def test_one_far_sample_among_others(monkeypatch):
    by_kernel(monkeypatch)
    x = normal(3, C, 4, 4, dtype=torch.float32)
    x[1] += 1e3
    x[2] = math.nan
    y, exact = GroupNorm(C, 2)(channels_last(x)), GroupNorm(C, 2).double()(x.double())
    assert_same({"y": y[:2]}, {"y": exact[:2]}, 1e-4)
    assert y[2].isnan().all()


@pytest.mark.parametrize("needed", list(itertools.product([True, False], repeat=3)), ids=str)
def test_channels_last_behind_and_before_frozen_layers(monkeypatch, needed):
    """Where x needs no gradient, torch's channels-last kernel ends the process on its way back (2.11)."""
    by_kernel(monkeypatch)
    layer, found = randomize(GroupNorm(C, 2)).double(), []
    for order in (channels_last, torch.Tensor.contiguous):
        inputs = (normal(2, C, 4, 4), *layer.parameters())
        inputs = [v.requires_grad_(use) for v, use in zip(inputs, needed, strict=True)]
        y = layer(order(inputs[0]))
        assert y.requires_grad is any(needed)
        wanted = [v for v in inputs if v.requires_grad]
        found.append(dict(enumerate(torch.autograd.grad(y.square().sum(), wanted)) if wanted else {}))
    assert_same(*found)


def test_derivatives_of_the_channels_last_gradient(monkeypatch):
    by_kernel(monkeypatch)
    layer = randomize(GroupNorm(4, 2)).double()
    x = normal(2, 4, 2, 2)

    def of(x, weight, bias):
        return group_normalize(channels_last(x), 2, weight, bias, layer.eps)

    inputs = [v.detach().requires_grad_() for v in (x, layer.weight, layer.bias)]
    assert torch.autograd.gradgradcheck(of, inputs)
    y = of(*inputs)
    many = torch.stack([normal(*x.shape, seed=s) for s in range(3)])
    together = torch.autograd.grad(y, inputs, many, is_grads_batched=True, retain_graph=True)
    for i, one in enumerate(many):
        apart = torch.autograd.grad(y, inputs, one, retain_graph=True)
        assert_same(dict(enumerate(t[i] for t in together)), dict(enumerate(apart)))


def test_a_hook_may_change_the_strides(monkeypatch):
    by_kernel(monkeypatch)
    layer, results = randomize(GroupNorm(C, 2)).double(), []

    def spread(tensor):
        return tensor.repeat_interleave(2)[::2] if tensor.dim() == 1 else tensor

    for keep in (lambda t: t, torch.Tensor.contiguous, spread):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            results.append(measure(layer, channels_last(normal(2, C, 3, 3)), normal(2, C, 3, 3, seed=1)))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


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
