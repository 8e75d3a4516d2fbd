"""The contract of `references` rejects every mistake known from public code, each put into a copy of a layer."""

import pytest
import torch
from compare import PATHS, take
from references import (
    METHODS,
    WrittenBatchChannelNorm,
    WrittenBatchNorm,
    WrittenBatchRenorm,
    WrittenEstimateNorm,
    WrittenGroupNorm,
    WrittenMomentumBatchNorm,
    contract,
    moments,
    per_channel,
    scaled,
)
from torch import nn

from normlib.layers import BatchChannelNorm, BatchRenorm, MomentumBatchNorm, _batch, _normalize
from normlib.layers import batch_channel_norm as bcn
from normlib.layers import batch_renorm as brn
from normlib.layers import momentum_batch_norm as mbn

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {
    "bn": {},
    "brn": {"r_max": 3.0, "d_max": 5.0, "momentum": 0.3},
    "gn": {"num_groups": 2},
    "bcn": {"num_groups": 2},
    "bcn-estimate": {"num_groups": 2, "momentum": 0.3},
    "mbn": {"batch_size": 4, "lam": 0.875},
}


def rejected(method, kind=None, **options):
    with pytest.raises(AssertionError, match=r": off by|: shape \("):
        contract(method, OPTIONS[method] | options, kind)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", OPTIONS)
def test_the_contract_accepts_the_layers(monkeypatch, method, path):
    take(monkeypatch, path)
    contract(method, OPTIONS[method])


@pytest.mark.parametrize("method", OPTIONS)
def test_the_contract_accepts_the_formulas(method):
    """So what it rejects below in a copy of them, it rejects for the mistake."""
    contract(method, OPTIONS[method], METHODS[method][1])


# In the layers themselves, by a patch


@pytest.fixture
def kernel(monkeypatch):
    take(monkeypatch, "kernel")


@pytest.fixture
def fused(monkeypatch):
    take(monkeypatch, "fused")


@pytest.fixture(params=["fused", "rows"])
def ours(request, monkeypatch):
    take(monkeypatch, request.param)


every = pytest.mark.parametrize("path", PATHS)


def correction(r_detached=True, d_detached=True, squared=False):
    """Batch Renorm's r and d, with a mistake."""

    def broken(std, mean, running_mean, running_std, r_max, d_max):
        r = ((std.square() if squared else std) / running_std).clamp(1 / r_max, r_max)
        d = ((mean - running_mean) / running_std).clamp(-d_max, d_max)
        return r.detach() if r_detached else r, d.detach() if d_detached else d

    return broken


@pytest.fixture
def gradients_in_statistics(monkeypatch, kernel):
    """The batch's statistics with their gradients; the running averages still take values alone."""
    monkeypatch.setattr(brn, "statistics", moments)
    monkeypatch.setattr(brn, "move", torch.no_grad()(brn.move))


def test_the_patch_without_a_mistake_is_accepted(monkeypatch, gradients_in_statistics):
    monkeypatch.setattr(brn, "_correction", correction())
    contract("brn", OPTIONS["brn"])


@pytest.mark.parametrize("mistake", [{"r_detached": False}, {"d_detached": False}], ids=str)
def test_r_or_d_not_detached(monkeypatch, gradients_in_statistics, mistake):
    monkeypatch.setattr(brn, "_correction", correction(**mistake))
    with pytest.raises(AssertionError, match="dx: off by"):
        contract("brn", OPTIONS["brn"])


@every
def test_renorm_with_the_variance_for_the_deviation(monkeypatch, path):
    take(monkeypatch, path)
    monkeypatch.setattr(brn, "_correction", correction(squared=True))
    rejected("brn")


@every
def test_renorm_with_r_and_d_frozen(monkeypatch, path):
    take(monkeypatch, path)
    monkeypatch.setattr(brn, "_correction", lambda std, mean, *_: (torch.ones_like(std), torch.zeros_like(mean)))
    rejected("brn")


@every
def test_renorm_updated_before_use(monkeypatch, path):
    take(monkeypatch, path)
    right, rate = brn._correction, OPTIONS["brn"]["momentum"]

    def late(std, mean, running_mean, running_std, *limits):
        return right(std, mean, torch.lerp(running_mean, mean, rate), torch.lerp(running_std, std, rate), *limits)

    monkeypatch.setattr(brn, "_correction", late)
    rejected("brn")


@every
def test_renorm_clipped_on_one_side(monkeypatch, path):
    take(monkeypatch, path)
    right = brn._correction
    monkeypatch.setattr(brn, "_correction", lambda *a: (right(*a[:4], float("inf"), a[5])[0], right(*a)[1]))
    rejected("brn", r_max=1.1)


@pytest.mark.parametrize("method", ["brn", "mbn"])
@pytest.mark.parametrize("mistake", ["unbiased for biased", "E[x²] − E[x]²"])
def test_wrong_variance(monkeypatch, kernel, method, mistake):
    right = _batch.statistics

    def wrong(x):
        mean, var = right(x)
        n = x.numel() // x.shape[1]
        if mistake == "unbiased for biased":
            return mean, var * n / (n - 1)
        return mean, right(x.square())[0] - mean.square()

    module = brn if method == "brn" else mbn
    monkeypatch.setattr(module, "statistics", wrong)
    rejected(method, **({"lam": 0.0} if method == "mbn" else {}))


@pytest.mark.parametrize("method", ["brn", "bcn-estimate", "mbn"])
def test_cancelling_variance_in_the_shared_normalization(monkeypatch, fused, method):
    def cancelling(x, layout):  # what it would hold had x not been centered
        return (
            (x + 1e4).square().sum(layout.dims, keepdim=True) - layout.n * 1e8 - 2e4 * x.sum(layout.dims, keepdim=True)
        )

    monkeypatch.setattr(_normalize, "sum_of_squares", cancelling)
    monkeypatch.setattr(bcn, "sum_of_squares", cancelling)
    rejected(method)


def test_a_rate_that_stays_zero():
    rejected("bcn-estimate", lambda C, momentum, **options: BatchChannelNorm(C, momentum=0.0, estimate=True, **options))


def test_estimates_centred_on_the_new_mean_in_the_kernels_path(monkeypatch, kernel):
    def square(self, mean, var):
        new = (1 - self.momentum) * self.running_mean + self.momentum * mean
        return var + (mean - new).square()

    monkeypatch.setattr(bcn._EstimateNorm, "_square", square)
    rejected("bcn-estimate")


def test_estimates_centred_on_the_new_mean(monkeypatch, ours):
    def line(eps, rate, mean, var, old_mean, old_var):
        new = (1 - rate) * old_mean + rate * mean
        slope = ((1 - rate) * old_var + rate * (var + (mean - new).square()) + eps).rsqrt()
        return _normalize.Line(slope, (mean - new) * slope, offset_by_mean=slope)

    monkeypatch.setattr(bcn, "_estimate_line", line)
    rejected("bcn-estimate")


@pytest.mark.parametrize(
    "mistake",
    [
        {"slope_by_var": lambda line, lam: line.slope_by_var / (1 - lam)},
        {"slope_by_var": lambda line, lam: None, "offset_by_var": lambda line, lam: None},
        {"offset_by_mean": lambda line, lam: None},
        {"offset_by_mean": lambda line, lam: line.slope},
        {"offset_by_var": lambda line, lam: None},
    ],
    ids=["σ² whole", "σ² constant", "μ whole", "μ constant", "x − μ_B for x̂ in ⟨g x̂⟩"],
)
def test_momentum_without_its_share_of_the_gradient(monkeypatch, ours, mistake):
    right = mbn._line

    def line(eps, lam, *statistics):
        got = right(eps, lam, *statistics)
        return got._replace(**{name: change(got, lam) for name, change in mistake.items()})

    monkeypatch.setattr(mbn, "_line", line)
    rejected("mbn")


# In a subclass of a layer


class StdFromZero(BatchRenorm):
    def add_statistics(self, **values):
        super().add_statistics(**dict.fromkeys(values, 0))


class VarianceAsStd(BatchRenorm):
    def forward(self, x):
        before = self.running_std.clone()
        y = super().forward(x)
        if self.training:
            self.running_std.copy_(before.lerp(moments(x.detach())[1] + self.eps, self.momentum))
        return y


class TrainsAtEvaluation(BatchRenorm):
    def forward(self, x):
        training = self.training
        y = self.train().__class__.__base__.forward(self, x)
        self.train(training)
        return y


class AffinePerChannel(BatchChannelNorm):
    def __init__(self, num_features, **options):
        super().__init__(num_features, **options)
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))


class HistoryOfBatches(MomentumBatchNorm):
    """h ← μ_B instead of μ."""

    def forward(self, x):
        y = super().forward(x)
        if self.training:
            for buffer, value in zip((self.momentum_mean, self.momentum_var), moments(x.detach()), strict=True):
                buffer.copy_(value)
        return y


class OneAverage(MomentumBatchNorm):
    """μ_inf ← μ: the training history serves evaluation."""

    def forward(self, x):
        y = super().forward(x)
        self.running_mean.copy_(self.momentum_mean), self.running_var.copy_(self.momentum_var)
        return y


@pytest.mark.parametrize("kind", [StdFromZero, VarianceAsStd, TrainsAtEvaluation], ids=lambda k: k.__name__)
def test_broken_renorm(kind):
    rejected("brn", kind)


def test_affine_per_channel():
    rejected("bcn", AffinePerChannel)
    rejected("bcn-estimate", lambda C, **options: AffinePerChannel(C, estimate=True, **options))


@pytest.mark.parametrize("kind", [HistoryOfBatches, OneAverage], ids=lambda k: k.__name__)
def test_broken_momentum(kind):
    rejected("mbn", kind)


# In a copy of the formulas


class AffineFirst(WrittenBatchRenorm):
    """r (γ x̃ + β) + d"""

    def step(self, x):
        normalized, new = super().step(x)
        mean, var = moments(x)
        plain = scaled(x, mean, (var + self.eps).sqrt())
        r = ((var + self.eps).sqrt() / self.running_std).clamp(1 / self.r_max, self.r_max).detach()
        d = normalized - plain * per_channel(r, x)
        return (WrittenBatchRenorm.affine(self, plain) * per_channel(r, x)) + d, new

    def affine(self, x):
        return x if self.training else super().affine(x)


class NoGradientThroughTheBatch(WrittenBatchRenorm):
    def step(self, x):
        mean, var = (m.detach() for m in moments(x))
        _, new = super().step(x)
        std = (var + self.eps).sqrt()
        r = (std / self.running_std).clamp(1 / self.r_max, self.r_max)
        d = ((mean - self.running_mean) / self.running_std).clamp(-self.d_max, self.d_max)
        return scaled(x, mean, std) * per_channel(r, x) + per_channel(d, x), new


class FromTheOutput(WrittenEstimateNorm):
    """Statistics updated from the normalized output."""

    def step(self, x):
        normalized, _ = super().step(x)
        return normalized, super().step(normalized)[1]


class GradientThroughEstimates(WrittenEstimateNorm):
    def step(self, x):
        rate, (batch_mean, _) = self.momentum, moments(x)
        square = (x - per_channel(self.running_mean, x)).square()
        mean = (1 - rate) * self.running_mean + rate * batch_mean
        var = (1 - rate) * self.running_var + rate * moments(square)[0]
        new = {"running_mean": mean, "running_var": var}
        return scaled(x, mean, (var + self.eps).sqrt()), new


def with_batch(kind):
    def make(C, **options):
        layer = WrittenBatchChannelNorm(C, estimate=True, **options)
        layer.batch = kind(C, momentum=options["momentum"])
        return layer

    return make


class ByHand(torch.autograd.Function):
    """Momentum Batch Norm with the gradient as the paper writes it, around `centre`."""

    @staticmethod
    def forward(ctx, x, mean, std, batch_mean, lam, centre):
        centers = {"μ_B": batch_mean, "μ": mean}
        ctx.save_for_backward(x, mean, std, centers[centre])
        ctx.lam = lam
        return scaled(x, mean, std)

    @staticmethod
    def backward(ctx, g):
        x, mean, std, centre = ctx.saved_tensors
        share, normalized = 1 - ctx.lam, scaled(x, mean, std)
        mean_g, mean_gx = moments(g)[0], moments(g * normalized)[0]
        inner = per_channel(share * mean_g, x) + share * scaled(x, centre, std) * per_channel(mean_gx, x)
        return (g - inner) / per_channel(std, x), None, None, None, None, None


class MomentumByHand(WrittenMomentumBatchNorm):
    centre = "μ_B"

    def step(self, x):
        _, new = super().step(x)
        mean, std = new["momentum_mean"].detach(), (new["momentum_var"].detach() + self.eps).sqrt()
        return ByHand.apply(x, mean, std, moments(x)[0].detach(), self.momentum_lambda, self.centre), new


class CentredOnTheMix(MomentumByHand):
    """x − μ where the gradient has x − μ_B."""

    centre = "μ"


class Unbiased(WrittenBatchNorm):
    def step(self, x):
        n = x.numel() // x.shape[1]
        mean, var = moments(x)
        return scaled(x, mean, (var * n / (n - 1) + self.eps).sqrt()), super().step(x)[1]


class Cancelling(WrittenGroupNorm):
    """E[x²] − E[x]²"""

    def forward(self, x):
        seen = x.reshape(len(x), self.num_groups, -1)
        mean = seen.mean(2, keepdim=True)
        var = seen.square().mean(2, keepdim=True) - mean.square()
        y = ((seen - mean) / (var.clamp(min=0) + self.eps).sqrt()).reshape(x.shape)
        return y * per_channel(self.weight, x) + per_channel(self.bias, x)


class UnbiasedGroups(WrittenGroupNorm):
    def forward(self, x):
        seen = x.reshape(len(x), self.num_groups, -1)
        y = ((seen - seen.mean(2, keepdim=True)) / (seen.var(2, keepdim=True) + self.eps).sqrt()).reshape(x.shape)
        return y * per_channel(self.weight, x) + per_channel(self.bias, x)


def test_the_gradient_by_hand_is_accepted():
    contract("mbn", OPTIONS["mbn"], MomentumByHand)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("bn", Unbiased),
        ("brn", AffineFirst),
        ("brn", NoGradientThroughTheBatch),
        ("gn", Cancelling),
        ("gn", UnbiasedGroups),
        ("mbn", CentredOnTheMix),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_broken_formulas(method, kind):
    rejected(method, kind)


@pytest.mark.parametrize("kind", [FromTheOutput, GradientThroughEstimates], ids=lambda k: k.__name__)
def test_broken_estimates(kind):
    contract("bcn-estimate", OPTIONS["bcn-estimate"], with_batch(WrittenEstimateNorm))
    rejected("bcn-estimate", with_batch(kind))
