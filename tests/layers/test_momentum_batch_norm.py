"""Momentum Batch Norm: its identities, its gradient as derived, its noise."""

import pytest
import torch
from compare import PATHS, assert_same, measure, normal, randomize, take
from references import C, moments, per_channel, scaled, spread, state

from normlib.layers import BatchNorm, MomentumBatchNorm
from normlib.schedules import momentum_lambda

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (4, C, 3, 2)
X, DY = spread(normal(*SHAPE)), normal(*SHAPE, seed=1)


@pytest.fixture(params=PATHS, autouse=True)
def path(request, monkeypatch):
    take(monkeypatch, request.param)


def as_batch_norm(layer):
    plain = BatchNorm(C, virtual_batch_size=layer.virtual_batch_size).double()
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("momentum")})
    return plain


@pytest.mark.parametrize("virtual", [None, 2])
@pytest.mark.parametrize(
    ("m", "epoch", "total"),
    [(4, 1, 10), (32, 7, 10), (64, 10, 10), (2, 1, 1), (2, 5, 1)],
    ids=["first epoch", "m = m₀", "m > m₀", "T = 1", "beyond T = 1"],
)
def test_where_lambda_is_0_it_is_batch_norm_in_training(m, epoch, total, virtual):
    layer = randomize(MomentumBatchNorm(C, m, virtual_batch_size=virtual)).double()
    layer.set_epoch(epoch, total)
    assert layer.momentum_lambda == 0
    got, expected = measure(layer, X, DY), measure(as_batch_norm(layer), X, DY)
    names = ("y", "dx", "dweight", "dbias")
    assert_same({n: got[n] for n in names}, {n: expected[n] for n in names})


def test_its_two_histories():
    """At λ = 0 the training history is the last batch; evaluation uses τ, and the biased variance."""
    layer = randomize(MomentumBatchNorm(C, 16, tau0=0.81)).double()
    before = state(layer)
    assert layer.tau == pytest.approx(0.9, abs=1e-15)
    layer(X)
    mean, var = moments(X)
    assert_same(
        dict(layer.named_buffers()),
        {
            "momentum_mean": mean,
            "momentum_var": var,
            "running_mean": 0.9 * before["running_mean"] + 0.1 * mean,
            "running_var": 0.9 * before["running_var"] + 0.1 * var,
            "num_batches_tracked": before["num_batches_tracked"] + 1,
        },
        1e-12,
    )


def test_gradient_as_derived():
    """(1/s) [g − (1−λ)⟨g⟩ − (1−λ) (x−μ_B)/s ⟨g x̂⟩]"""
    layer = randomize(MomentumBatchNorm(C, 4)).double()
    layer.momentum_lambda = lam = 0.6
    mean, var = moments(X)
    mixed = lam * layer.momentum_mean + (1 - lam) * mean
    s = (lam * layer.momentum_var + (1 - lam) * var + layer.eps).sqrt()
    g, normalized = DY * per_channel(layer.weight.detach(), X), scaled(X, mixed, s)
    inner = per_channel(moments(g)[0], X) + scaled(X, mean, s) * per_channel(moments(g * normalized)[0], X)
    expected = (g - (1 - lam) * inner) / per_channel(s, X)
    assert_same({"dx": measure(layer, X, DY)["dx"]}, {"dx": expected})


def test_virtual_batches_blend_with_one_history():
    """Each group uses the history from before the step, which then becomes the mean of what the groups used."""
    layer = randomize(MomentumBatchNorm(C, 2, virtual_batch_size=2)).double()
    layer.momentum_lambda = lam = 0.7
    before = state(layer)
    layer(X)
    for name, per_group in zip(("mean", "var"), zip(*map(moments, X.split(2)), strict=True), strict=True):
        used = [lam * before[f"momentum_{name}"] + (1 - lam) * value for value in per_group]
        assert_same({name: getattr(layer, f"momentum_{name}")}, {name: torch.stack(used).mean(0)}, 1e-12)


def test_set_epoch_follows_the_schedule():
    layer = MomentumBatchNorm(C, 8)
    assert layer.momentum_lambda == 0
    for epoch in (1, 50, 100, 200, 300):
        layer.set_epoch(epoch, 200)
        assert layer.momentum_lambda == momentum_lambda(epoch, 200, 8)
    with pytest.raises(ValueError, match="total_epochs must be at least 1, got 0"):
        layer.set_epoch(1, 0)
    assert layer.momentum_lambda == 0.75


def test_noise_is_that_of_the_effective_batch():
    """Stationary: Var ξ_μ = (1−λ)/(m(1+λ)); the mean of ξ_σ stays at (m−1)/m."""
    m, lam, channels, steps = 4, 0.5, 4096, 30  # 0.5³⁰: the start is forgotten
    layer = MomentumBatchNorm(channels, m, affine=False)
    layer.momentum_lambda = lam
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(steps):
            layer(torch.randn(m, channels, generator=generator))
    mean, var = layer.momentum_mean, layer.momentum_var
    expected = (1 - lam) / (m * (1 + lam))
    # five standard errors: of a variance √(2/n) of itself, of a mean σ/√n
    assert abs(mean.var().item() / expected - 1) < 5 * (2 / channels) ** 0.5
    spread_of_var = (2 * (m - 1) / m**2 * (1 - lam) / (1 + lam)) ** 0.5
    assert abs(var.mean().item() - (m - 1) / m) < 5 * spread_of_var / channels**0.5


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore:.*should not be instantiated:DeprecationWarning"
)
def test_a_new_lambda_every_epoch_does_not_compile_anew_each_time():
    torch.compiler.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    layer = MomentumBatchNorm(C, 4)
    compiled, x = torch.compile(layer, backend=backend, fullgraph=True), X.float()
    with torch.no_grad():
        for epoch in range(1, 13):
            layer.set_epoch(epoch, 12)
            compiled(x)
    assert len(graphs) <= 3  # λ = 0, the first λ, any λ
