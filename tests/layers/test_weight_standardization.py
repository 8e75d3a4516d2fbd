"""Weight Standardization: formula, gradient, and where public versions differ."""

import pytest
import torch
from compare import assert_same, measure, normal
from torch import nn
from torch.nn import functional

from normlib.layers import WSConv2d, weight_standardize

pytestmark = pytest.mark.usefixtures("one_thread")


def written(weight, eps=1e-5, correction=0):
    """(W − ⟨W⟩) / √(⟨(W − ⟨W⟩)²⟩ + ε)"""
    flat = weight.flatten(1)
    centered = flat - flat.mean(1, keepdim=True)
    var = centered.square().sum(1, keepdim=True) / (flat.shape[1] - correction)
    return (centered / (var + eps).sqrt()).view_as(weight)


@pytest.mark.parametrize("shape", [(5, 2), (5, 3, 3), (5, 2, 3, 3), (5, 2, 2, 1, 3), (4, 1, 3, 3)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_formula_and_its_derivatives(shape, eps):
    weight = (normal(*shape) * 0.3 + 0.1).requires_grad_()
    ours, theirs = weight_standardize(weight, eps), written(weight, eps)
    assert_same({"y": ours}, {"y": theirs})
    upstream, direction = normal(*shape, seed=1), normal(*shape, seed=2)
    got, want = (torch.autograd.grad(w, weight, upstream, create_graph=True)[0] for w in (ours, theirs))
    assert_same({"dw": got}, {"dw": want})
    second = [torch.autograd.grad((g * direction).sum(), weight)[0] for g in (got, want)]
    assert_same({"second": second[0]}, {"second": second[1]}, 1e-10)


def test_gradient_as_derived_sums_to_0_per_filter():
    """σ_W⁻¹ [G − ⟨G⟩ − Ŵ ⟨G Ŵ⟩]"""
    weight, upstream = normal(6, 2, 3, 3).requires_grad_(), normal(6, 2, 3, 3, seed=1)
    standardized = weight_standardize(weight)
    (dw,) = torch.autograd.grad(standardized, weight, upstream)
    flat, G, W = weight.detach().flatten(1), upstream.flatten(1), standardized.detach().flatten(1)
    s = (flat.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    inner = G - G.mean(1, keepdim=True) - W * (G * W).mean(1, keepdim=True)
    assert_same({"dw": dw.flatten(1)}, {"dw": inner / s})
    assert dw.flatten(1).sum(1).abs().max() < 1e-13
    assert ((dw * standardized).flatten(1).sum(1) / s.flatten()).abs().max() < 1e-3  # 0 but for ε


def test_unbiased_versions_are_smaller_by_a_known_factor():
    weight = normal(4, 3, 3, 3)  # I = 27
    ratio = written(weight, 0.0, correction=1) / weight_standardize(weight, 1e-300)
    torch.testing.assert_close(ratio, torch.full_like(ratio, (26 / 27) ** 0.5), rtol=1e-12, atol=0)
    assert round((26 / 27) ** 0.5, 4) == 0.9813


def test_scale_and_mean_of_a_filter_do_not_matter():
    weight = normal(4, 3, 3, 3)
    factor, shift = torch.tensor([0.5, 2, 30, 1]).view(-1, 1, 1, 1), torch.tensor([1, -2, 0, 100]).view(-1, 1, 1, 1)
    moved = weight_standardize(weight * factor + shift, 1e-300)
    torch.testing.assert_close(moved, weight_standardize(weight, 1e-300), rtol=0, atol=1e-11)


def test_large_mean_in_float32():
    weight = (normal(8, 64, 3, 3) + 1e4).float()
    assert (weight_standardize(weight).double() - written(weight.double())).abs().max() < 4e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    weight = (normal(8, 16, 3, 3) * 100).to(dtype)
    assert_same({"w": weight_standardize(weight)}, {"w": written(weight.double())}, torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "bias": False},
        {"padding": 1, "padding_mode": "reflect"},
        {"groups": 2},
        {"groups": 4, "ws_eps": 0.1},
        {"dilation": 2, "padding": "same"},
    ],
    ids=str,
)
def test_the_convolution(options):
    layer = WSConv2d(4, 8, 3, **options).double()
    options = {name: value for name, value in options.items() if name != "ws_eps"}
    plain = nn.Conv2d(4, 8, 3, **options).double()
    with torch.no_grad():
        plain.load_state_dict(layer.state_dict())
        plain.weight.copy_(written(layer.weight, layer.ws_eps))
    x = normal(2, 4, 7, 7)
    y, expected = layer(x), plain(x)
    assert_same({"y": y}, {"y": expected})
    dy = normal(*y.shape, seed=1)
    got, plain_got = measure(layer, x, dy), measure(plain, x, dy)
    weight = layer.weight.detach().requires_grad_()
    (through,) = torch.autograd.grad(written(weight, layer.ws_eps), weight, plain_got["dweight"])
    assert_same(got, plain_got | {"dweight": through})


def test_autocast_and_unbatched_input():
    layer, x = WSConv2d(4, 8, 3), normal(2, 4, 7, 7).float()
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert_same({"y": y}, {"y": exact}, 0.05)
    assert_same({"y": layer(x[0])}, {"y": exact[0]}, 1e-5)


def test_vmap_and_gradients_over_stacked_weights():
    weights, upstream = normal(3, 4, 2, 3, 3), normal(4, 2, 3, 3, seed=1)
    each = torch.func.vmap(torch.func.grad(lambda w: (weight_standardize(w) * upstream).sum()))(weights)
    for i in range(3):
        weight = weights[i].clone().requires_grad_()
        assert_same({"dw": each[i]}, {"dw": torch.autograd.grad(written(weight), weight, upstream)[0]})


def test_a_normalization_behind_hides_the_difference():
    """Batch Norm does not see the filter's scale: the official and this version train alike up to ε."""
    x, weight = normal(8, 3, 6, 6), normal(4, 3, 3, 3)
    ours = functional.batch_norm(functional.conv2d(x, weight_standardize(weight)), None, None, training=True, eps=1e-12)
    official = written(weight, 1e-10, correction=1)
    theirs = functional.batch_norm(functional.conv2d(x, official), None, None, training=True, eps=1e-12)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert (weight_standardize(weight) - official).abs().max() > 0.01


@pytest.mark.parametrize(
    ("weight", "eps", "message"),
    [
        (torch.ones(4), 1e-5, r"weight must have shape \(C_out, ...\) with 2 values per filter, got \(4,\)"),
        (torch.ones(4, 1), 1e-5, r"2 values per filter, got \(4, 1\)"),
        (torch.ones(4, 0), 1e-5, r"2 values per filter, got \(4, 0\)"),
        (torch.ones(4, 3, dtype=torch.int64), 1e-5, "weight must be floating point, got torch.int64"),
        (torch.ones(4, 3), 0, "eps must be a number above 0 and finite, got 0"),
        (torch.ones(4, 3), float("nan"), "eps must be .* got nan"),
    ],
)
def test_refused(weight, eps, message):
    with pytest.raises(ValueError, match=message):
        weight_standardize(weight, eps)


def test_refused_convolutions():
    with pytest.raises(ValueError, match="ws_eps must be a number above 0"):
        WSConv2d(4, 8, 3, ws_eps=-1)
    with pytest.raises(ValueError, match="2 values per filter"):
        WSConv2d(4, 4, 1, groups=4)
    assert "ws_eps=0.1" in repr(WSConv2d(4, 8, 3, ws_eps=0.1))
