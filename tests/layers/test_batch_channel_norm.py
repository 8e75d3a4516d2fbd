"""Batch-Channel Norm: its two halves, the affine per group, and the estimates of the micro-batch form."""

import contextlib
import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from compare import PATHS, assert_same, measure, normal, randomize, take
from references import C, moments, per_channel, scaled, spread, state
from torch.autograd import forward_ad
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint

from normlib.layers import BatchChannelNorm, BatchNorm, GroupNorm

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (4, C, 3, 2)
X, DY = spread(normal(*SHAPE)), normal(*SHAPE, seed=1)


@pytest.fixture(params=PATHS, autouse=True)
def path(request, monkeypatch):
    take(monkeypatch, request.param)
    return request.param


def test_it_is_batch_norm_then_group_norm():
    layer = randomize(BatchChannelNorm(C, 2)).double()
    layer.weight.data.fill_(1), layer.bias.data.fill_(0)
    batch, group = BatchNorm(C).double(), GroupNorm(C, 2, affine=False).double()
    batch.load_state_dict(layer.batch.state_dict())
    got, expected = measure(layer, X, DY), measure(torch.nn.Sequential(batch, group), X, DY)
    assert_same({n: got[n] for n in ("y", "dx")}, {n: expected[n] for n in ("y", "dx")})
    assert_same({"w": got["dbatch.weight"]}, {"w": expected["d0.weight"]})
    assert_same(dict(layer.batch.named_buffers()), dict(batch.named_buffers()))


@pytest.mark.parametrize("estimate", [False, True])
def test_the_affine_is_per_group(estimate):
    layer = BatchChannelNorm(C, 2, estimate=estimate).double()
    assert layer.weight.shape == layer.bias.shape == (2,)
    plain = layer.eval()(X)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -3.0])), layer.bias.copy_(torch.tensor([0.5, 1.0]))
    scale = torch.tensor([2.0, 2, -3, -3], dtype=torch.double)
    shift = torch.tensor([0.5, 0.5, 1, 1], dtype=torch.double)
    torch.testing.assert_close(layer(X), plain * per_channel(scale, X) + per_channel(shift, X))


def half(rate=0.3):
    """The estimating half alone, with a history."""
    return randomize(BatchChannelNorm(C, 2, momentum=rate, estimate=True)).double().batch


def test_estimates_are_updated_first_around_the_old_mean():
    layer, rate = half(), 0.3
    old = state(layer)
    y = layer(X)
    mean = (1 - rate) * old["running_mean"] + rate * moments(X)[0]
    var = (1 - rate) * old["running_var"] + rate * moments((X - per_channel(old["running_mean"], X)).square())[0]
    assert_same({"m": layer.running_mean, "v": layer.running_var}, {"m": mean, "v": var}, 1e-12)
    weight, bias = per_channel(layer.weight, X), per_channel(layer.bias, X)
    assert_same({"y": y}, {"y": weight * scaled(X, mean, (var + 1e-5).sqrt()) + bias}, 1e-12)


def test_the_estimates_pass_no_gradient():
    """∂L/∂x = g/√(σ̂²' + ε)"""
    layer = half()
    dx = measure(layer, X, DY)["dx"]
    s = (layer.running_var + 1e-5).sqrt()
    assert_same({"dx": dx}, {"dx": DY * per_channel(layer.weight.detach() / s, X)})


def test_a_rate_of_0_never_learns_and_a_rate_of_1_forgets():
    never, always = half(0.0), half(1.0)
    before = state(never)
    never(X), always(X)
    assert_same({**state(never), "num_batches_tracked": before["num_batches_tracked"]}, before, 0)
    assert_same({"m": always.running_mean}, {"m": moments(X)[0]}, 1e-12)


def test_estimates_converge_to_the_data():
    layer = BatchChannelNorm(C, 2, estimate=True, momentum=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        layer(torch.randn(1, C, 8, 8, generator=generator) * 3 + 5)
    # 64 values a step, about 19 steps averaged: 0.1 is over five standard errors of the mean
    assert (layer.batch.running_mean - 5).abs().max() < 5 * 3 / (64 * 19) ** 0.5
    assert (layer.batch.running_var / 9 - 1).abs().max() < 0.3


def test_one_value_per_channel_is_enough_for_estimates():
    layer, x = BatchChannelNorm(C, 2, estimate=True), normal(1, C).float()
    assert layer(x).isfinite().all()
    with pytest.raises(ValueError, match="at least 2 values per channel"):
        BatchChannelNorm(C, 2)(x)


def test_names_are_torchs():
    assert set(BatchChannelNorm(C, 2).state_dict()) == {
        "weight", "bias", "batch.weight", "batch.bias", "batch.running_mean", "batch.running_var",
        "batch.num_batches_tracked",
    }  # fmt: skip
    assert not list(BatchChannelNorm(C, 2, affine=False).parameters())
    assert "num_groups=2, eps=1e-05, estimate=True" in repr(BatchChannelNorm(C, 2, estimate=True))


@pytest.mark.parametrize("estimate", [False, True])
@pytest.mark.parametrize("virtual", [None, 2])
@pytest.mark.parametrize("hook", [None, lambda module, inputs, z: 3 * z**2], ids=["plain", "hooked"])
def test_what_is_made_again_for_the_backward_pass_is_what_it_was(estimate, virtual, hook):
    """Statistics move between the passes, and a hook may change what the first half returns."""
    layer = randomize(BatchChannelNorm(C, 2, estimate=estimate, virtual_batch_size=virtual)).double()
    plain = copy.deepcopy(layer)
    if hook:
        layer.batch.register_forward_hook(hook)
    x = X.clone().requires_grad_()
    y = layer(x)
    layer(2 * X + 1)  # moves the statistics
    got = torch.autograd.grad(y, [x, *layer.parameters()], DY)

    z = plain.batch(x)
    y = F.group_norm(z if hook is None else hook(None, None, z), 2, eps=layer.eps)
    weight, bias = (v.repeat_interleave(2).view(1, -1, 1, 1) for v in (plain.weight, plain.bias))
    expected = torch.autograd.grad(y * weight + bias, [x, *plain.parameters()], DY)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def evaluated(layer, x):
    y = layer(x)
    layer.eval()
    return y


def changed(layer, x):
    y = layer(x)
    layer.batch.eps, layer.batch.momentum, layer.batch.virtual_batch_size = 1.0, 0.9, None
    return y


def with_parameters_of_another(layer, x):
    other = {name: parameter.detach() + 0.5 for name, parameter in layer.named_parameters()}
    return torch.func.functional_call(layer, other, (x,))


def checkpointed(layer, x):
    return checkpoint(layer, x, use_reentrant=False)


@pytest.mark.parametrize("virtual", [None, 2])
@pytest.mark.parametrize("estimate", [False, True])
@pytest.mark.parametrize("way", [evaluated, changed, with_parameters_of_another, checkpointed])
def test_the_backward_pass_sees_the_layer_as_the_forward_pass_did(way, estimate, virtual):
    layer = randomize(BatchChannelNorm(C, 2, estimate=estimate, virtual_batch_size=virtual)).double()
    both = copy.deepcopy(layer)
    both.batch.register_forward_hook(lambda *_: None)  # so that it keeps both activations
    x = X.clone().requires_grad_()
    if way is checkpointed and estimate:  # its second forward pass would see moved estimates
        with pytest.raises(RuntimeError, match=r"torch\.utils\.checkpoint"):
            torch.autograd.grad(way(layer, x), x, DY)
        return
    (got,) = torch.autograd.grad(way(layer, x), x, DY)
    (expected,) = torch.autograd.grad((both if way is checkpointed else partial(way, both))(x), x, DY)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("change", [lambda layer, x: x.add_(1), lambda layer, x: layer.batch.bias.add_(1)])
def test_what_is_changed_in_place_before_the_backward_pass_is_refused_or_does_not_matter(change):
    layer = randomize(BatchChannelNorm(C, 2)).double()
    x, parameter = X.clone(), layer.batch.weight
    (expected,) = torch.autograd.grad(layer(x), parameter, DY)
    y = layer(x)
    with torch.no_grad():
        change(layer, x)
    got = None
    with contextlib.suppress(RuntimeError):
        (got,) = torch.autograd.grad(y, parameter, DY, retain_graph=True)
    if got is None:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y, parameter, DY)
    else:
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("estimate", [False, True])
def test_planes_far_from_one_another_cost_few_digits(estimate):
    """The samples' means lie 10 000 times farther apart than what each varies by, and count from 1000 on."""
    x = (0.01 * normal(4, C, 8, 8) + 100 * normal(4, C, 1, 1, seed=1) + 1e3).float()
    layer = BatchChannelNorm(C, C, eps=1e-12, estimate=estimate)
    y, expected = (
        kind(x.to(dtype)) for kind, dtype in ((layer, x.dtype), (copy.deepcopy(layer).double(), torch.double))
    )
    assert expected.std() > 0.5
    assert_same({"y": y.detach()}, {"y": expected.detach()}, 1e-2)


def gradients(create_graph):
    layer = randomize(BatchChannelNorm(C, 2)).double()
    x = X.clone().requires_grad_()
    return torch.autograd.grad(layer(layer(x).tanh()), [x, *layer.parameters()], DY, create_graph=create_graph)


def test_gradients_that_are_to_be_differentiated_are_the_same_where_inputs_hang_on_one_another():
    for a, b in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimate", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), 1e6])
def test_no_virtual_batch_feels_another(bad, estimate):
    layer = BatchChannelNorm(C, 2, estimate=estimate, virtual_batch_size=2)
    x = normal(6, C, 4, 4).float()
    spoilt = x.clone()
    spoilt[0] += bad
    torch.testing.assert_close(copy.deepcopy(layer)(spoilt)[2:], layer(x)[2:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["full_backward_hook", "full_backward_pre_hook"])
def test_backward_hooks_of_the_first_half_are_called(kind):
    layer, calls = BatchChannelNorm(C, 2).double(), []
    getattr(layer.batch, f"register_{kind}")(lambda *_: calls.append(1))
    layer(X.clone().requires_grad_()).sum().backward()
    assert calls == [1]


@pytest.mark.parametrize("estimate", [False, True])
def test_many_gradients_at_once(estimate):
    layer, x = randomize(BatchChannelNorm(C, 2, estimate=estimate)).double(), X.clone().requires_grad_()
    y, many = layer(x), torch.stack([DY, 2 * DY + 1])
    got = torch.autograd.grad(y, [x, *layer.parameters()], many, is_grads_batched=True, retain_graph=True)
    for k, dy in enumerate(many):
        expected = torch.autograd.grad(y, [x, *layer.parameters()], dy, retain_graph=True)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a[k], b, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, at its first use
def test_forward_mode(path):
    """By torch's kernels; what has no rule for it says so."""
    layer = randomize(BatchChannelNorm(C, 2)).double()
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X, DY)
        if path != "kernel":
            with pytest.raises(NotImplementedError, match="jvp"):
                layer(x)
            return
        _, slope = forward_ad.unpack_dual(layer(x))
    step = 1e-6
    torch.testing.assert_close(slope, (layer(X + step * DY) - layer(X - step * DY)) / (2 * step), rtol=1e-6, atol=1e-6)


def test_statistics_kept_in_another_precision_than_the_input():
    layer = BatchChannelNorm(C, 2, estimate=True, affine=False)
    assert layer(X).dtype == torch.float64
    assert layer.batch.running_mean.dtype == torch.float32


LAYOUTS = [
    lambda x: x,
    lambda x: x.to(memory_format=torch.channels_last),
    lambda x: x.flatten(2).mT.contiguous().mT,
    lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
]


@pytest.mark.parametrize("laid_out", LAYOUTS)
def test_memory_order_is_that_of_evaluation(laid_out):
    layer = BatchChannelNorm(C, 2).double()
    x = laid_out(X)
    assert layer(x).stride() == layer.eval()(x).stride()


@pytest.mark.parametrize("estimate", [False, True])
def test_the_first_halfs_parameters_may_be_parametrized(estimate):
    layer = BatchChannelNorm(C, 2, estimate=estimate).double()
    plain = layer(X)
    prune.random_unstructured(layer.batch, "weight", amount=1)
    assert (layer(X) - plain).abs().max() > 0.1
    prune.remove(layer.batch, "weight")
    parametrize.register_parametrization(layer.batch, "bias", torch.nn.Identity())
    assert layer(X).isfinite().all()
