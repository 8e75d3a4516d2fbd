"""The noise of batch statistics against enumeration, quadrature, brute force and autograd."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from normlib import noise
from normlib.layers import BatchNorm


@pytest.mark.parametrize("values", [[0.0, 1.0], [-1.0, 0.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_moments_are_exact_for_every_distribution(values, n):
    """All batches of n draws from a few equally likely values, one by one."""
    z = (np.array(values) - np.mean(values)) / np.std(values)
    batches = np.array(list(itertools.product(z, repeat=n)))
    mean, var = batches.mean(1), batches.var(1)
    assert mean.mean() == pytest.approx(0, abs=1e-12)
    assert mean.var() == pytest.approx(noise.mean_variance(n))
    assert (var.mean(), var.var()) == pytest.approx(noise.variance_moments(n, kurtosis=np.mean(z**4)), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 32, 256])
def test_normal_values(n):
    t = np.linspace(-1, 3, 41)
    np.testing.assert_allclose(noise.mean_cdf(t, n), stats.norm.cdf(t, scale=n**-0.5), atol=1e-12)
    expected = (t >= 0).astype(float) if n == 1 else stats.chi2.cdf(t * n, n - 1)
    np.testing.assert_allclose(noise.variance_cdf(t, n), expected, atol=1e-12)
    if n > 1:
        chi = stats.chi2(n - 1, scale=1 / n)
        assert noise.variance_moments(n) == pytest.approx(chi.stats())
        root = stats.chi(n - 1, scale=n**-0.5)
        assert noise.deviation_mean(n) == pytest.approx(root.mean(), rel=1e-9)
        real = n + 0.4
        np.testing.assert_allclose(noise.mean_cdf(t, real), stats.norm.cdf(t, scale=real**-0.5), atol=1e-12)
        np.testing.assert_allclose(noise.variance_cdf(t, real), stats.chi2.cdf(t * real, real - 1), atol=1e-12)
    assert noise.variance_moments(1) == (0, 0)
    assert noise.deviation_mean(1) == 0


@pytest.mark.parametrize("m", [2, 4, 32])
def test_samples_have_the_moments_of_theory(m):
    mean, var = noise.sample(m, 200_000, np.random.default_rng(m))
    assert mean.shape == var.shape == (200_000,)
    assert mean.var() == pytest.approx(noise.mean_variance(m), rel=0.02)
    assert (var.mean(), var.var()) == pytest.approx(noise.variance_moments(m), rel=0.02)
    np.testing.assert_allclose(stats.kstest(var, lambda t: noise.variance_cdf(t, m)).statistic, 0, atol=0.005)
    assert abs(np.corrcoef(mean, var)[0, 1]) < 0.01  # independent for normal values


def test_samples_come_in_blocks_of_bounded_size():
    mean, var = noise.sample(1 << 16, 200, np.random.default_rng(0))
    assert mean.shape == var.shape == (200,)
    assert var.mean() == pytest.approx(1, rel=0.01)


def test_samples_of_a_population_are_its_batches():
    population = np.random.default_rng(1).gamma(2.0, size=(50, 6)) * 3 + 100
    mean, var = noise.sample(4, 1000, np.random.default_rng(2), population)
    chosen = np.random.default_rng(2).integers(50, size=(1000, 4))
    batches = population[chosen].reshape(1000, -1)
    np.testing.assert_allclose(mean, (batches.mean(1) - population.mean()) / population.std(), atol=1e-12)
    np.testing.assert_allclose(var, batches.var(1) / population.var(), atol=1e-12)
    flat, var = noise.sample(1, 100, np.random.default_rng(3), population[:, 0])
    assert flat.shape == (100,)
    assert var.max() == pytest.approx(0, abs=1e-12)


def test_effective_values_predict_the_variance_of_batch_means():
    """Four positions, of which only two differ: a sample is worth between one and two values."""
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(40_000, 3, 2)) + 0.5 * rng.normal(size=(40_000, 3, 1))
    x = torch.from_numpy(np.concatenate([pairs, pairs], 2)).view(-1, 3, 2, 2)
    k = noise.effective_values(x)
    correlation = 0.25 / 1.25
    np.testing.assert_allclose(k, 2 / (1 + correlation), rtol=0.03)
    batch_means = x.view(-1, 8, 3, 4).mean((1, 3))
    expected = x.var((0, 2, 3)) / (8 * k)
    np.testing.assert_allclose(batch_means.var(0), expected, rtol=0.06)


def test_effective_values_at_the_edges():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(noise.effective_values(x), 99 / 100)
    pattern = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    shared = noise.effective_values(10 * pattern + x[:, :, None, None])
    assert (shared > 1).all()  # a pattern that all samples share adds variance, and no noise
    assert noise.effective_values(torch.ones(5, 2, 3)).isnan().all()


@pytest.mark.parametrize("tau", [0.0, 0.5, 0.9])
def test_running_averages(tau):
    rng = np.random.default_rng(0)
    noisy, drifting, values = 0.0, 0.0, []
    for step in range(200_000):
        noisy = tau * noisy + (1 - tau) * rng.normal()
        drifting = tau * drifting + (1 - tau) * step
        values.append(noisy)
    assert np.var(values[100:]) == pytest.approx(noise.running_noise(tau), rel=0.03)
    assert step - drifting == pytest.approx(noise.running_lag(tau), abs=1e-6)


@pytest.mark.parametrize("n", [8, 16, 64])
def test_gradient_gain(n):
    x, g = torch.randn(2, n, 40_000, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    x.requires_grad_()
    y = BatchNorm(40_000, eps=1e-12, affine=False).double()(x)
    (gradient,) = torch.autograd.grad(y, x, g)
    measured = (gradient.square().mean() / g.square().mean()).item()
    assert measured == pytest.approx(noise.gradient_gain(n), rel=0.02)


def test_gradient_gain_at_the_edges():
    assert noise.gradient_gain(2) == 0
    assert noise.gradient_gain(3) == math.inf
    x = torch.tensor([[1.0], [5.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        BatchNorm(1, eps=1e-12).double()(x), x, torch.tensor([[3.0], [-7.0]], dtype=torch.float64)
    )
    assert gradient.abs().max() < 1e-11


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_gradient_gain_of_pairs_at_a_small_eps(eps):
    """gradient_gain's docstring: the mean square over half-distances d, whose density is that of |N(0, 1/2)|."""
    d = torch.linspace(0, 100 * eps**0.5, 100_001, dtype=torch.float64)
    x = torch.stack([d, -d]).requires_grad_()
    g = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, len(d))  # δ = 1; its mean square is 1/2
    (gradient,) = torch.autograd.grad(BatchNorm(len(d), eps=eps, affine=False).double()(x), x, g)
    density = 2 * (-d.square()).exp() / math.sqrt(math.pi)
    gain = torch.trapezoid(gradient[0].square() * density, d).item() / 2
    assert gain == pytest.approx(3 * math.sqrt(math.pi / eps) / 16, rel=2e-3)


class Net(nn.Sequential):
    def __init__(self, norm):
        super().__init__(
            nn.Linear(4, 5), norm(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 5), norm(5), nn.Linear(5, 2)
        )


@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm1d])
class TestRecomputedStatistics:
    @pytest.fixture
    def model(self, norm):
        torch.manual_seed(0)
        model = Net(norm).double()
        model(torch.randn(32, 4, dtype=torch.float64) * 3 + 1)
        return model

    @pytest.fixture
    def x(self):
        return torch.randn(60, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def test_one_batch_of_everything_is_the_population(self, model, x):
        noise.recompute_statistics(model, [x])
        model.eval()
        h = x
        for layer in model:
            if hasattr(layer, "running_mean"):
                torch.testing.assert_close(layer.running_mean, h.mean(0))
                torch.testing.assert_close(layer.running_var, h.var(0))
                h = (h - h.mean(0)) / (h.var(0, correction=0) + layer.eps).sqrt()
            else:
                h = layer(h)
        assert model[1].momentum == 0.1

    def test_batches_are_averaged_equally(self, model, x):
        parts = x.split(20)
        noise.recompute_statistics(model, iter(parts))
        inputs = [model[0](part) for part in parts]
        torch.testing.assert_close(model[1].running_mean, torch.stack([h.mean(0) for h in inputs]).mean(0))
        torch.testing.assert_close(model[1].running_var, torch.stack([h.var(0) for h in inputs]).mean(0))

    def test_weights_and_modes_stay(self, model, x):
        before = {k: v.clone() for k, v in model.named_parameters()}
        model[1].eval()
        assert noise.recompute_statistics(model, [x]) is model
        assert [m.training for m in model] == [True, False, True, True, True, True, True]
        assert all(torch.equal(before[k], v) for k, v in model.named_parameters())

    def test_a_failing_batch_leaves_modes_and_momentum(self, model, x):
        with pytest.raises(RuntimeError):
            noise.recompute_statistics(model, [x, x[:, :3]])
        assert model[1].momentum == 0.1
        assert all(module.training for module in model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.mean_variance(0), "n must be an integer of at least 1, got 0"),
        (lambda: noise.variance_moments(2.5), "n must be an integer of at least 1, got 2.5"),
        (lambda: noise.variance_moments(4, kurtosis=0.5), "kurtosis must be at least 1, got 0.5"),
        (lambda: noise.mean_cdf([0.0], -1), "n must be a number of at least 1, got -1"),
        (lambda: noise.mean_cdf([0.0], math.nan), "n must be"),
        (lambda: noise.variance_cdf([0.0], True), "n must be"),
        (lambda: noise.deviation_mean(0), "n must be"),
        (lambda: noise.gradient_gain(1), "n must be an integer of at least 2, got 1"),
        (lambda: noise.sample(0, 5, np.random.default_rng(0)), "m must be"),
        (lambda: noise.sample(2, 0, np.random.default_rng(0)), "draws must be"),
        (
            lambda: noise.sample(2, 5, np.random.default_rng(0), np.ones(4)),
            "population must hold finite values that differ",
        ),
        (lambda: noise.sample(2, 5, np.random.default_rng(0), []), "population must hold"),
        (lambda: noise.sample(2, 5, np.random.default_rng(0), [0.0, np.nan]), "population must hold"),
        (lambda: noise.effective_values(torch.ones(1, 3)), r"x must have the shape \(N, C, \*\)"),
        (lambda: noise.effective_values(torch.ones(3)), r"x must have the shape"),
        (lambda: noise.running_noise(1.0), r"tau must be a number in \[0, 1\), got 1.0"),
        (lambda: noise.running_lag(-0.1), "tau must be"),
        (lambda: noise.recompute_statistics(nn.Linear(2, 2), [torch.ones(2, 2)]), "model must hold Batch Norm layers"),
        (lambda: noise.recompute_statistics(nn.BatchNorm1d(2), []), "batches must hold at least one batch, got none"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
