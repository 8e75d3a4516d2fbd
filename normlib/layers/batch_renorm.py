r"""Batch Renormalization (Ioffe, 2017, arXiv 1702.03275).

Training, per channel, with running averages μ and σ of the batch's mean and deviation:

    σ_B = √(⟨(x − μ_B)²⟩ + ε),   r = sg[clip(σ_B/σ, 1/r_max, r_max)],   d = sg[clip((μ_B − μ)/σ, −d_max, d_max)]
    x̂ = (x − μ_B)/σ_B · r + d,   y = γ x̂ + β,   then   μ ← μ + α(μ_B − μ),   σ ← σ + α(σ_B − σ)
    ∂L/∂x = (r/σ_B) [g − ⟨g⟩ − x̃ ⟨g x̃⟩],   x̃ = (x − μ_B)/σ_B,   ∂L/∂γ = Σ ∂L/∂y x̂,   g = γ ∂L/∂y

Evaluation: y = γ (x − μ)/σ + β. While r and d are not clipped, training computes exactly that.

Since r and d are constants for the gradient (sg), the layer is Batch Norm with γ r for γ and γ d + β for β, in the
backward pass too. Easy mistakes, of which public code has made the first and the last: γ and β before the correction,
gradients through r and d (which leaves g/σ), μ and σ updated before they are used, σ² averaged under the name of σ.
Keras (`renorm=True`) has ε = 1e-3 and α = 1 − `renorm_momentum`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import _batch, _checks
from ._batch import BatchStatistics, by_torch, move, side_by_side, snapshot, statistics, torch_normalize
from ._normalize import Line, batch_normalize


def _correction(std: Tensor, mean: Tensor, running_mean: Tensor, running_std: Tensor, r_max: float, d_max: float):
    r, d = std / running_std, (mean - running_mean) / running_std
    if torch.compiler.is_compiling():  # bounds of clamp are constants to it: a graph for every epoch of a ramp
        one = torch.ones_like(running_std)
        r_max, d_max = one * r_max, one * d_max
        r, d = r.minimum(r_max).maximum(one / r_max), d.minimum(d_max).maximum(-d_max)
    else:
        r, d = r.clamp(1 / r_max, r_max), d.clamp(-d_max, d_max)
    return r.detach(), d.detach()


def _line(eps, r_max, d_max, mean: Tensor, var: Tensor, running_mean: Tensor, running_std: Tensor) -> Line:
    std = (var + eps).sqrt()
    r, d = _correction(std, mean, running_mean, running_std, r_max, d_max)
    slope = r / std
    return Line(slope, d, slope_by_var=slope / (var + eps) * -0.5)


class BatchRenorm(BatchStatistics):
    """Batch Norm corrected towards the running statistics, so that training and evaluation compute nearly the same.

    Args:
        num_features: channels C of an input of shape (N, C, *), any number of trailing dimensions.
        eps: added to the variance under the root; 1e-5 as in torch's Batch Norm.
        momentum: α in [0, 1], weight of the new batch in the running averages; 0.01 as in the paper.
        affine: learn γ (`weight`) and β (`bias`), both of shape (C,).
        r_max: bound on the change of scale, at least 1 (1: none, plain Batch Norm); math.inf for no bound.
        d_max: bound on the shift in running deviations, at least 0; math.inf for no bound.
        virtual_batch_size: m, take statistics over each m consecutive samples (the paper's microbatches); the
            running averages collect their mean. None: the whole batch.
        schedule: (epoch, total_epochs) → (r_max, d_max), applied by `set_epoch`; None leaves them as they are.
            The paper's ramp is `normlib.schedules.renorm_limits`.

    Buffers: `running_mean`, `running_std` (the deviation, ε included, not the variance), `num_batches_tracked`.

    Raises:
        ValueError: an argument outside its range; in `forward` as `BatchNorm`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.01,
        affine: bool = True,
        r_max: float = 1.0,
        d_max: float = 0.0,
        virtual_batch_size: int | None = None,
        schedule: Callable[[int, int], tuple[float, float]] | None = None,
    ):
        super().__init__(num_features, eps, affine, virtual_batch_size)
        self.momentum = _checks.unit_interval("momentum", momentum)
        self.set_limits(r_max, d_max)
        self.schedule = schedule
        self.add_statistics(running_mean=0, running_std=1)

    def set_limits(self, r_max: float, d_max: float) -> None:
        """Set the bounds; ValueError if r_max is below 1 or d_max below 0."""
        r_max, d_max = _checks.at_least("r_max", r_max, 1), _checks.at_least("d_max", d_max, 0)
        self.r_max, self.d_max = r_max, d_max

    def set_epoch(self, epoch: int, total_epochs: int) -> None:
        """Move the bounds along `schedule`, if there is one; epochs count from 1."""
        if self.schedule is not None:
            self.set_limits(*self.schedule(epoch, total_epochs))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._gamma_beta
        running_mean, running_std = self._buffers["running_mean"], self._buffers["running_std"]
        _checks.features(x, self.num_features, running_mean)
        if not self.training:
            if running_std.dtype in _checks.HALF:  # where σ² leaves the range
                running_mean, running_std = running_mean.float(), running_std.float()
                weight, bias = (None, None) if weight is None else (weight.float(), bias.float())
            # ε is in σ already; torch wants one all the same
            var, tiny = running_std.square(), torch.finfo(running_std.dtype).tiny
            return _batch.evaluate(x, running_mean, var, weight, bias, tiny)
        groups = _checks.batch_groups(x, self.virtual_batch_size)
        history = snapshot(running_mean, running_std)
        if by_torch(x, groups):
            mean, var = (v.view(groups, -1) for v in statistics(side_by_side(x, groups)))
            std = (var + self.eps).sqrt()
            r, d = _correction(std, mean, *history, self.r_max, self.d_max)
            if weight is not None:
                r, d = r * weight, d * weight + bias
            y, _ = torch_normalize(x, r.flatten(), d.flatten(), self.eps, groups)
        else:
            line = partial(_line, self.eps, self.r_max, self.d_max)
            y, mean, var = batch_normalize(x, weight, bias, line, groups=groups, history=history)
            std = (var + self.eps).sqrt()
        self._buffers["num_batches_tracked"].add_(1)
        move(running_mean, mean.mean(0), self.momentum)
        move(running_std, std.mean(0), self.momentum)
        return y

    def _shown(self) -> list[str]:
        return ["momentum", "r_max", "d_max", *super()._shown()]
