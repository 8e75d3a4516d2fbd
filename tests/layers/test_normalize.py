"""The shared normalization with lines that move in every way, against autograd and finite differences."""

import pytest
import torch
from compare import assert_same, normal

from normlib.layers import _normalize
from normlib.layers._normalize import Line, batch_normalize

EPS = 1e-5
C = 3


def general(mean, var, history):
    """A line with every partial derivative different from 0."""
    slope = (var + 0.1).rsqrt() * (1 + history.square())
    return Line(
        slope,
        offset=mean * var.log1p() * history,
        slope_by_var=-0.5 * slope / (var + 0.1),
        offset_by_mean=var.log1p() * history,
        offset_by_var=mean / (1 + var) * history,
    )


def constant(mean, var, history):
    """Fixed statistics: the line stands still."""
    return Line(1 / history, -0.5 * torch.ones_like(history))


def centred_only(mean, var):
    return Line(torch.ones_like(var))


def batch_norm(mean, var):
    slope = (var + EPS).rsqrt()
    return Line(slope, slope_by_var=-0.5 * slope**3)


def momentum_batch_norm(share):
    """x̂ = (x − μ) / √(σ² + ε), with μ and σ² mixed from the history (weight λ = 1 − share) and the batch (share)."""

    def line(mean, var, old_mean, old_var):
        slope = ((1 - share) * old_var + share * var + EPS).rsqrt()
        behind = (1 - share) * (mean - old_mean)
        slope_by_var = -0.5 * share * slope**3
        return Line(slope, behind * slope, slope_by_var, (1 - share) * slope, behind * slope_by_var)

    return line


def batch_renorm(r_max, d_max):
    """x̂ = r (x − μ_B) / σ_B + d; r and d have no gradient."""

    def line(mean, var, old_mean, old_std):
        std = (var + EPS).sqrt()
        r = (std / old_std).clamp(1 / r_max, r_max).detach()
        d = ((mean - old_mean) / old_std).clamp(-d_max, d_max).detach()
        return Line(r / std, d, slope_by_var=-0.5 * r / std**3)

    return line


H = normal(C, seed=5).abs() + 0.5
OLD_MEAN, OLD = normal(C, seed=6), normal(C, seed=7).abs() + 0.5
CASES = {
    "general": (general, (H,)),
    "constant": (constant, (H,)),
    "centered only": (centred_only, ()),
    "batch norm": (batch_norm, ()),
    "momentum batch norm": (momentum_batch_norm(0.25), (OLD_MEAN, OLD)),
}
SHAPES = [(4, C), (4, C, 3), (2, C, 2, 1, 2)]
weight, bias = normal(C, seed=8), normal(C, seed=9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_derivatives_by_finite_differences(case, affine, groups, shape):
    line, history = CASES[case]
    if groups * 2 > shape[0] * len(shape[2:] or [1]):
        pytest.skip("one value per statistic")

    def function(x, *parameters):
        w, b = parameters or (None, None)
        return batch_normalize(x, w, b, line, groups=groups, history=history)[0]

    inputs = [t.clone().requires_grad_() for t in (normal(*shape), *([weight, bias] if affine else []))]
    torch.autograd.gradcheck(function, inputs)
    if shape == SHAPES[1]:
        torch.autograd.gradgradcheck(function, inputs)


def formula(x, line, history, groups):
    """x̂ = slope (x − μ_B) + offset by autograd, with statistics that carry the gradient."""
    parts = x.view(groups, -1, *x.shape[1:])
    dims = [d for d in range(parts.dim()) if d not in (0, 2)]
    mean = parts.mean(dims, keepdim=True)
    var = (parts - mean).square().mean(dims, keepdim=True)
    slope, offset, *_ = line(mean, var, *(h.view(-1, *[1] * (x.dim() - 2)) for h in history))
    centered = slope * (parts - mean)
    statistics = mean.detach().flatten(1), var.detach().flatten(1)
    return (centered if offset is None else centered + offset).view_as(x), *statistics


@pytest.mark.parametrize("shape", [(4, C), (4, C, 3, 2)], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("line", "history"),
    [
        *CASES.values(),
        (batch_renorm(1.0, 0.0), (OLD_MEAN, OLD)),
        (batch_renorm(1.5, 0.5), (OLD_MEAN, OLD)),
        (batch_renorm(1e9, 1e9), (OLD_MEAN, OLD)),
    ],
    ids=[*CASES, "renorm as batch norm", "renorm clipped", "renorm unclipped"],
)
def test_values_and_gradients_by_autograd_of_the_formula(line, history, groups, shape):
    x, dy = normal(*shape).requires_grad_(), normal(*shape, seed=1)
    w, b = (t.clone().requires_grad_() for t in (weight, bias))
    channel = (1, C) + (1,) * (len(shape) - 2)
    got = batch_normalize(x, w, b, line, groups=groups, history=history)
    y, mean, var = formula(x, line, history, groups)
    expected = (y * w.view(channel) + b.view(channel), mean, var)
    names = ("y", "mean", "var", "dx", "dweight", "dbias")
    assert_same(
        dict(zip(names, (*got, *torch.autograd.grad(got[0], [x, w, b], dy)), strict=True)),
        dict(zip(names, (*expected, *torch.autograd.grad(expected[0], [x, w, b], dy)), strict=True)),
    )


def test_renorm_unclipped_is_normalization_by_history():
    x = normal(4, C, 3)
    y, *_ = batch_normalize(x, None, None, batch_renorm(1e9, 1e9), history=(OLD_MEAN, OLD))
    torch.testing.assert_close(y, (x - OLD_MEAN.view(-1, 1)) / OLD.view(-1, 1), rtol=1e-12, atol=1e-12)


def test_momentum_gradient_as_derived():
    """(1/s) [g − (1−λ)⟨g⟩ − (1−λ) (x−μ_B)/s ⟨g x̂⟩]"""
    x, g = normal(4, C, 3).requires_grad_(), normal(4, C, 3, seed=1)
    line = momentum_batch_norm(share := 0.25)
    y, *_ = batch_normalize(x, None, None, line, history=(OLD_MEAN, OLD))
    (dx,) = torch.autograd.grad(y, x, g)
    x = x.detach()
    mean, var = x.mean((0, 2), keepdim=True), x.var((0, 2), correction=0, keepdim=True)
    s = ((1 - share) * OLD.view(-1, 1) + share * var + EPS).sqrt()
    over = (g.mean((0, 2), keepdim=True), (g * y.detach()).mean((0, 2), keepdim=True))
    torch.testing.assert_close(dx, (g - share * over[0] - share * (x - mean) / s * over[1]) / s, rtol=1e-11, atol=1e-12)


def test_history_gets_no_gradient_and_must_not_change_before_the_backward_pass():
    x, history = normal(4, C).requires_grad_(), H.clone().requires_grad_()
    y, *_ = batch_normalize(x, None, None, general, history=(history,))
    dx, dhistory = torch.autograd.grad(y.square().sum(), [x, history], allow_unused=True, retain_graph=True)
    assert dx.abs().sum() > 0
    assert dhistory is None
    with torch.no_grad():
        history.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_statistics_are_detached_and_shaped_by_group():
    y, mean, var = batch_normalize(normal(6, C, 2).requires_grad_(), None, None, batch_norm, groups=3)
    assert y.requires_grad
    assert not mean.requires_grad
    assert not var.requires_grad
    assert mean.shape == var.shape == (3, C)


def test_weight_alone_may_need_the_gradient():
    x, dy = normal(4, C, 3), normal(4, C, 3, seed=1)
    w = weight.clone().requires_grad_()
    y, *_ = batch_normalize(x, w, bias, batch_norm)
    (dw,) = torch.autograd.grad(y, w, dy)
    plain, *_ = batch_normalize(x, None, None, batch_norm)
    torch.testing.assert_close(dw, (dy * plain).sum((0, 2)))
    assert not batch_normalize(x, None, None, batch_norm)[0].requires_grad


@pytest.mark.parametrize("at", [0, 7, 15])
def test_the_shift_by_a_part_of_the_samples_costs_no_accuracy(at):
    """The worst batch for it: all the spread between one sample and the rest, and a far mean."""
    x = torch.zeros(16, 1, 4)
    x[at] = 1000
    x += torch.rand(16, 1, 4, generator=torch.Generator().manual_seed(0)) + 3e4
    y, mean, var = batch_normalize(x, None, None, batch_norm)
    exact, exact_mean, exact_var = batch_normalize(x.double(), None, None, batch_norm)
    torch.testing.assert_close(mean.double(), exact_mean, rtol=2e-7, atol=0)
    # the subtracted square is up to 15 times the variance, each known to about one float32 rounding of 1.2e-7
    torch.testing.assert_close(var.double(), exact_var, rtol=5e-6, atol=0)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_sums_do_not_overflow(dtype):
    x = (normal(64, C, 16) * 1000 + 3000).to(dtype)
    y, mean, var = batch_normalize(x, None, None, batch_norm)
    exact, exact_mean, exact_var = batch_normalize(x.double(), None, None, batch_norm)
    assert (y.dtype, mean.dtype, var.dtype) == (dtype, torch.float32, torch.float32)
    got, expected = {"mean": mean, "var": var}, {"mean": exact_mean, "var": exact_var}
    assert_same(got, expected, 1e-6)
    assert_same({"y": y}, {"y": exact}, torch.finfo(dtype).eps)


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("shape", [(7, C, 5), (7, C, 5, 4)], ids=str)
def test_large_tensors_some_samples_at_a_time(monkeypatch, samples, shape):
    """Seven samples: the last part is smaller than the others, or each has one."""
    x, dy = (5 + normal(*shape)).requires_grad_(), normal(*shape, seed=1)
    w, b = (t.clone().requires_grad_() for t in (weight, bias))

    def step():
        y, mean, var = batch_normalize(x, w, b, general, history=(OLD,))
        return dict(enumerate([y, mean, var, *torch.autograd.grad(y, [x, w, b], dy)]))

    whole = step()
    split, counts = _normalize.in_parts, []

    def counted(*given):
        parts = list(split(*given))
        counts.append(len(parts))
        return parts

    monkeypatch.setattr(_normalize, "_CACHED", samples * x[0].numel())
    monkeypatch.setattr(_normalize, "in_parts", counted)
    assert_same(step(), whole)
    assert counts == [-(-7 // samples)] * 4  # statistics and output, sums and gradient


@pytest.mark.parametrize("grad_mode", [True, False])
def test_parameters_in_a_batch_over_one_input(grad_mode):
    """Then only what is computed from the parameters is batched, and cannot be written into the input's memory."""
    x, dy = normal(4, C, 5), normal(4, C, 5, seed=1)
    weights = torch.stack([weight, 2 * weight])

    def gradient(w):
        _, back = torch.func.vjp(lambda x: batch_normalize(x, w, w, batch_norm)[0], x)
        return back(dy)[0]

    with torch.set_grad_enabled(grad_mode):
        together = torch.func.vmap(gradient)(weights)
    assert_same(dict(enumerate(together)), dict(enumerate(map(gradient, weights))))


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore:.*should not be instantiated:DeprecationWarning"
)
@pytest.mark.parametrize("shape", [(C, 4), (C, 4, 5)], ids=str)
def test_compiled_in_one_graph_whatever_the_memory_order(shape):
    x, dy = (normal(*shape, seed=seed).transpose(0, 1) for seed in (0, 1))
    x.requires_grad_()

    def apply(x):
        return batch_normalize(x, weight, bias, batch_norm)[0]

    torch.compiler.reset()
    results = []
    for function in (apply, torch.compile(apply, backend="aot_eager", fullgraph=True)):
        y = function(x)
        results.append({"y": y, "dx": torch.autograd.grad(y, x, dy)[0]})
    assert_same(*results)
