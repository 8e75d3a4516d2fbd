"""Batch Renorm: its identities, its gradient as derived, its limits. (Keras's layer: test_oracles.py.)"""

import copy
import math

import pytest
import torch
from compare import PATHS, TorchBatchNorm, assert_same, measure, normal, randomize, take
from references import C, moments, per_channel, scaled, spread, state

from normlib.layers import BatchNorm, BatchRenorm
from normlib.layers import batch_renorm as module
from normlib.schedules import renorm_limits

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (4, C, 3, 2)
X, DY = spread(normal(*SHAPE)), normal(*SHAPE, seed=1)
UNBOUND = {"r_max": math.inf, "d_max": math.inf}


@pytest.fixture(params=PATHS, autouse=True)
def path(request, monkeypatch):
    take(monkeypatch, request.param)


def test_defaults():
    layer = BatchRenorm(C)
    assert (layer.eps, layer.momentum, layer.r_max, layer.d_max) == (1e-5, 0.01, 1.0, 0.0)
    assert repr(layer) == "BatchRenorm(4, momentum=0.01, r_max=1.0, d_max=0.0, eps=1e-05, affine=True)"


def test_unclipped_forward_is_normalization_by_the_history():
    layer = randomize(BatchRenorm(C, affine=False, **UNBOUND)).double()
    expected = scaled(X, layer.running_mean.clone(), layer.running_std.clone())
    torch.testing.assert_close(layer(X), expected, rtol=1e-12, atol=1e-12)


def test_evaluation_is_what_unclipped_training_computes():
    layer = randomize(BatchRenorm(C, **UNBOUND, momentum=0.0)).double()
    trained = layer(X)
    torch.testing.assert_close(layer.eval()(X), trained, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("virtual", [None, 2])
def test_without_room_it_is_batch_norm_in_training(virtual):
    layer = randomize(BatchRenorm(C, virtual_batch_size=virtual)).double()
    plain = BatchNorm(C, virtual_batch_size=virtual).double()
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "running_std"}, strict=False)
    got, expected = measure(layer, X, DY), measure(plain, X, DY)
    names = ("y", "dx", "dweight", "dbias")
    assert_same({n: got[n] for n in names}, {n: expected[n] for n in names})


def test_where_history_equals_the_batch_nothing_is_corrected():
    layer = BatchRenorm(C, **UNBOUND).double()
    mean, var = moments(X)
    layer.running_mean.copy_(mean), layer.running_std.copy_((var + layer.eps).sqrt())
    before = state(layer)
    torch.testing.assert_close(layer(X), TorchBatchNorm(C).double()(X), rtol=1e-12, atol=1e-12)
    assert_same({**state(layer), "num_batches_tracked": before["num_batches_tracked"]}, before, 1e-12)


def test_gradient_as_derived():
    """(r/σ_B) [g − ⟨g⟩ − x̃ ⟨g x̃⟩] and ∂L/∂γ = Σ ∂L/∂y (r x̃ + d)"""
    layer = randomize(BatchRenorm(C, r_max=1.5, d_max=0.5)).double()
    mean, var = moments(X)
    std = (var + layer.eps).sqrt()
    r = (std / layer.running_std).clamp(1 / 1.5, 1.5)
    d = ((mean - layer.running_mean) / layer.running_std).clamp(-0.5, 0.5)
    assert ((r == 1.5) | (r == 1 / 1.5)).any()
    assert d.abs().min() < 0.5 == d.abs().max()
    g, plain = DY * per_channel(layer.weight.detach(), X), scaled(X, mean, std)
    inner = g - per_channel(moments(g)[0], X) - plain * per_channel(moments(g * plain)[0], X)
    got = measure(layer, X, DY)
    expected = {
        "dx": inner * per_channel(r / std, X),
        "dweight": (DY * (plain * per_channel(r, X) + per_channel(d, X))).sum((0, 2, 3)),
        "dbias": DY.sum((0, 2, 3)),
    }
    assert_same({name: got[name] for name in expected}, expected)


def test_gradients_through_r_and_d_would_leave_g_over_sigma():
    """The paper's reason for the stop-gradient, and what the layer does not compute."""
    x = X.clone().requires_grad_()
    layer = randomize(BatchRenorm(C, affine=False, **UNBOUND)).double()
    mean, var = moments(x)
    std = (var + layer.eps).sqrt()
    r, d = std / layer.running_std, (mean - layer.running_mean) / layer.running_std
    y = scaled(x, mean, std) * per_channel(r, x) + per_channel(d, x)
    (leaking,) = torch.autograd.grad(y, x, DY)
    torch.testing.assert_close(leaking, DY / per_channel(layer.running_std, X), rtol=1e-10, atol=1e-12)
    assert (measure(layer, X, DY)["dx"] - leaking).abs().max() > 0.01


@pytest.mark.parametrize("virtual", [None, 2])
def test_finite_differences_with_r_and_d_frozen(monkeypatch, virtual):
    r, d = torch.tensor([0.7, 1.5, 1.0, 1.2]).double(), torch.tensor([0.5, -0.2, 0.0, 1.0]).double()

    def frozen(std, *_):
        shape = [C if size == C else 1 for size in std.shape]  # (C,) on one path, broadcasting on the other
        return r.view(shape).expand_as(std), d.view(shape).expand_as(std)

    monkeypatch.setattr(module, "_correction", frozen)
    layer = randomize(BatchRenorm(C, virtual_batch_size=virtual, momentum=0.0)).double()

    def function(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = [normal(4, C, 2).requires_grad_(), *layer.parameters()]
    torch.autograd.gradcheck(function, inputs)
    torch.autograd.gradgradcheck(function, inputs)


def test_the_history_before_the_update_is_used():
    layer = randomize(BatchRenorm(C, momentum=1.0, affine=False, **UNBOUND)).double()
    old = scaled(X, layer.running_mean.clone(), layer.running_std.clone())
    torch.testing.assert_close(layer(X), old, rtol=1e-12, atol=1e-12)
    mean, var = moments(X)
    expected = {"running_mean": mean, "running_std": (var + layer.eps).sqrt()}
    assert_same({name: getattr(layer, name) for name in expected}, expected)


def test_limits_and_their_schedule():
    layer = BatchRenorm(C, schedule=lambda epoch, total: renorm_limits(epoch, start=1, r_end=5, d_end=3))
    assert (layer.r_max, layer.d_max) == (1, 0)
    layer.set_epoch(3, 10)
    assert (layer.r_max, layer.d_max) == (2, 5)
    fixed = BatchRenorm(C, r_max=1.5, d_max=0.5)
    fixed.set_epoch(3, 10)
    assert (fixed.r_max, fixed.d_max) == (1.5, 0.5)
    with pytest.raises(ValueError, match=r"d_max must be a number of at least 0, got -1"):
        fixed.set_limits(2.0, -1)
    assert (fixed.r_max, fixed.d_max) == (1.5, 0.5)


def test_statistics_that_are_not_finite_spare_the_history():
    layer = randomize(BatchRenorm(C, momentum=0.5)).double()
    before, x = state(layer), X.clone()
    x[0, 0, 0, 0], x[0, 1, 0, 0] = math.nan, math.inf
    layer(x)
    for name in ("running_mean", "running_std"):
        assert torch.equal(getattr(layer, name)[:2], before[name][:2])
        assert not torch.isclose(getattr(layer, name)[2:], before[name][2:]).any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("virtual", [None, 4])
def test_compiled_it_keeps_the_history_of_the_forward_pass(virtual):
    """This backend computes again in the backward pass what is cheap, and the buffers have moved by then."""
    torch.compiler.reset()
    plain = randomize(BatchRenorm(C, momentum=0.5, r_max=3.0, d_max=5.0, virtual_batch_size=virtual)).double()
    compiled = torch.compile(copy.deepcopy(plain), backend="aot_eager_decomp_partition")
    x, dy = 2 * normal(16, C) + 1, normal(16, C, seed=1)
    got = {name.replace("_orig_mod.", ""): value for name, value in measure(compiled, x, dy).items()}
    assert_same(got, measure(plain, x, dy))
