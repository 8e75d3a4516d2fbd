r"""Momentum Batch Normalization (Yong, Huang, Meng, Hua, Zhang, ECCV 2020).

Training, per channel, with a history h_μ, h_σ² of the statistics:

    μ = λ h_μ + (1 − λ) μ_B,   σ² = λ h_σ² + (1 − λ) σ_B²,   x̂ = (x − μ)/√(σ² + ε),   y = γ x̂ + β
    then h_μ ← μ, h_σ² ← σ²
    ∂L/∂x = (1/s) [g − (1 − λ)⟨g⟩ − (1 − λ) (x − μ_B)/s · ⟨g x̂⟩],   s = √(σ² + ε),   g = γ ∂L/∂y

The history counts as constant, so a share 1 − λ of Batch Norm's gradient through the statistics remains; note
x − μ_B beside x̂, which is centered on μ. Evaluation uses another average, μ_inf ← τ μ_inf + (1 − τ) μ_B and the
same for the (biased) variance. λ grows over training, τ is fixed: `normlib.schedules` has both.

No official code is public. τ₀ is 0.9 in seed 000's text and 0.85 in its code; m is the number of samples that the
layer normalizes over (per device). λ = 0 is Batch Norm, but for the biased variance at evaluation.
"""

from functools import partial

from torch import Tensor

from .. import schedules
from . import _batch, _checks
from ._batch import (
    BatchStatistics,
    by_torch,
    for_each,
    move,
    side_by_side,
    snapshot,
    statistics,
    torch_normalize,
)
from ._normalize import Line, batch_normalize


def _line(eps, lam, mean: Tensor, var: Tensor, old_mean: Tensor, old_var: Tensor) -> Line:
    slope = (lam * old_var + (1 - lam) * var + eps).rsqrt()
    ahead = lam * (mean - old_mean)  # μ_B − μ
    slope_by_var = slope.pow(3) * (-0.5 * (1 - lam))
    return Line(slope, ahead * slope, slope_by_var, lam * slope, ahead * slope_by_var)


class MomentumBatchNorm(BatchStatistics):
    """Batch Norm whose training statistics are averaged over past batches, more and more as training proceeds.

    Args:
        num_features: channels C of an input of shape (N, C, *), any number of trailing dimensions.
        batch_size: m, the samples that share a statistic (virtual_batch_size where that is set); it enters λ and τ.
        ideal_batch_size: m₀, the batch size whose noise is aimed at; 32 in the paper.
        tau0: τ₀ in [0, 1), inference weight of the old value at m = m₀; 0.9 in the paper, 0.85 in public code.
        eps: added to the variance; 1e-5 as in torch.
        affine: learn γ (`weight`) and β (`bias`), both of shape (C,).
        virtual_batch_size: take statistics over each so many consecutive samples. All groups then blend with one
            history, which afterwards is the mean of what the groups used: that many devices with averaged buffers.

    `momentum_lambda` is λ, 0 until `set_epoch` moves it or the user sets it. Buffers: `running_mean` and `running_var`
    (biased) for evaluation, `momentum_mean` and `momentum_var` for training, `num_batches_tracked`.

    Raises:
        ValueError: an argument or λ outside its range; in `forward` as `BatchNorm`.
    """

    def __init__(
        self,
        num_features: int,
        batch_size: int,
        ideal_batch_size: int = 32,
        tau0: float = 0.9,
        eps: float = 1e-5,
        affine: bool = True,
        virtual_batch_size: int | None = None,
    ):
        super().__init__(num_features, eps, affine, virtual_batch_size)
        self.batch_size = _checks.positive_integer("batch_size", batch_size)
        self.ideal_batch_size = _checks.positive_integer("ideal_batch_size", ideal_batch_size)
        self.tau = schedules.inference_tau(batch_size, ideal_batch_size, tau0)
        self.momentum_lambda = 0.0
        self.add_statistics(running_mean=0, running_var=1, momentum_mean=0, momentum_var=1)

    @property
    def momentum_lambda(self) -> float:
        """λ in [0, 1), weight of the history in the training statistics."""
        return self._momentum_lambda

    @momentum_lambda.setter
    def momentum_lambda(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"momentum_lambda must be a number in [0, 1), got {value!r}")
        self._momentum_lambda = float(value)

    def set_epoch(self, epoch: int, total_epochs: int) -> None:
        """Set λ for an epoch, counted from 1, of total_epochs."""
        self.momentum_lambda = schedules.momentum_lambda(epoch, total_epochs, self.batch_size, self.ideal_batch_size)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._gamma_beta
        buffers, lam = self._buffers, self.momentum_lambda
        running_mean, running_var = buffers["running_mean"], buffers["running_var"]
        _checks.features(x, self.num_features, running_mean)
        if not self.training:
            return _batch.evaluate(x, running_mean, running_var, weight, bias, self.eps)
        groups = _checks.batch_groups(x, self.virtual_batch_size)
        old_mean, old_var = buffers["momentum_mean"], buffers["momentum_var"]
        if lam == 0 and by_torch(x, groups):  # Batch Norm
            mean, var = (v.view(groups, -1) for v in statistics(side_by_side(x, groups)))
            weight, bias = for_each(groups, weight), for_each(groups, bias)
            y, _ = torch_normalize(x, weight, bias, self.eps, groups)
        else:
            line, history = partial(_line, self.eps, lam), snapshot(old_mean, old_var)
            y, mean, var = batch_normalize(x, weight, bias, line, groups=groups, history=history)
        mean, var = (v[0] if groups == 1 else v.mean(0) for v in (mean, var))
        buffers["num_batches_tracked"].add_(1)
        for buffer, new, share in (
            (old_mean, mean, 1 - lam),
            (old_var, var, 1 - lam),
            (running_mean, mean, 1 - self.tau),
            (running_var, var, 1 - self.tau),
        ):
            move(buffer, new, share)
        return y

    def _shown(self) -> list[str]:
        return ["batch_size", "ideal_batch_size", "tau", "momentum_lambda", *super()._shown()]
