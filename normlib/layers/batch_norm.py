r"""Batch Normalization (Ioffe and Szegedy, 2015, arXiv 1502.03167).

Training, per channel, over the n = N·H·W values of a batch:

    μ_B = ⟨x⟩,   σ_B² = ⟨(x − μ_B)²⟩,   x̂ = (x − μ_B) / √(σ_B² + ε),   y = γ x̂ + β
    ∂L/∂x = (σ_B² + ε)^(−1/2) [g − ⟨g⟩ − x̂ ⟨g x̂⟩],   g = γ ∂L/∂y

Evaluation uses running averages of μ_B and σ_B² instead. Implementations differ in three places. Here, as in
torch, x is divided by the biased variance while the running average collects the unbiased one
(Keras averages the biased one); `momentum` is the weight of the new batch (the papers' and
Keras's is the weight of the old value); a single value per channel is refused.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import _checks
from ._normalize import Line, batch_normalize

# Below this many values one call of torch's kernel beats our few vectorised passes; above, and only for
# channels-first CPU tensors, its statistics loop is the slower (`make bench` shows both sides).
_FEW = 1 << 17


class BatchNorm(nn.Module):
    """Normalize each channel over the batch and all trailing dimensions.

    Args:
        num_features: channels C of an input of shape (N, C, *), any number of trailing dimensions.
        eps: added to the variance; 1e-5 as in torch.
        momentum: weight in [0, 1] of the new batch in the running averages, 0.1 as in torch (the papers' τ is 1 − momentum);
            None averages all batches since `reset_running_stats` equally.
        affine: learn γ (`weight`) and β (`bias`), both of shape (C,).
        track_running_stats: keep running averages; without them evaluation uses batch statistics.
        virtual_batch_size: m, take statistics over each m consecutive samples instead of the whole batch,
            as m samples on each of N/m devices would (running averages collect the devices' mean). None: all N.

    Buffers are torch's: `running_mean`, `running_var` (unbiased), `num_batches_tracked`; a state_dict of
    `nn.BatchNorm1d/2d/3d` loads, and the reverse. A batch whose statistics are not finite leaves the running averages as they were.

    Raises:
        ValueError: an argument outside its range; in `forward`, an input that is not floating point or not
            (N, C, *), a batch that virtual_batch_size does not divide, or fewer than two values per statistic.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        virtual_batch_size: int | None = None,
    ):
        super().__init__()
        self.num_features = _checks.positive_integer("num_features", num_features)
        self.eps = _checks.positive_float("eps", eps)
        self.momentum = None if momentum is None else _checks.unit_interval("momentum", momentum)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if virtual_batch_size is not None:
            _checks.positive_integer("virtual_batch_size", virtual_batch_size)
        self.virtual_batch_size = virtual_batch_size
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        if track_running_stats:
            self.register_buffer("running_mean", torch.zeros(num_features))
            self.register_buffer("running_var", torch.ones(num_features))
            self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)

    def forward(self, x: Tensor) -> Tensor:
        _checks.features(x, self.num_features)
        # read once: nn.Module's attribute look-up is slow beside a small batch
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        running_mean, running_var = self._buffers["running_mean"], self._buffers["running_var"]
        tracked = running_mean is not None
        if tracked and not self.training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, self.eps)
        groups = _checks.batch_groups(x, self.virtual_batch_size if self.training else None)
        if groups == 1 and not (x.is_cpu and x.numel() > _FEW and x.is_contiguous()):
            mean = var = None
            if tracked:  # at momentum 1 torch's running averages are the batch's statistics
                mean, var = running_mean.clone(), running_var.clone()
            cudnn = torch.backends.cudnn.enabled
            y = torch.batch_norm(x, weight, bias, mean, var, True, 1.0, self.eps, cudnn)
        else:
            y, mean, var = batch_normalize(x, weight, bias, self._line, groups=groups)
            n = x.numel() // (groups * self.num_features)
            mean, var = mean.mean(0), var.mean(0) * (n / (n - 1))
        if tracked:
            count = self._buffers["num_batches_tracked"].add_(1)
            share = 1.0 if self.momentum is None else self.momentum
            for running, new in ((running_mean, mean), (running_var, var)):
                # a non-finite difference becomes 0 on the device: no branch, no synchronization
                step = (new - running).nan_to_num_(0.0, 0.0, 0.0)
                running.add_(step / count if self.momentum is None else step, alpha=share)
        return y

    def _line(self, mean: Tensor, var: Tensor) -> Line:
        slope = (var + self.eps).rsqrt()
        return Line(slope, slope_by_var=slope.pow(3) * -0.5)

    def reset_running_stats(self) -> None:
        """Return the running averages to mean 0, variance 1, no batch seen."""
        if self.running_mean is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def extra_repr(self) -> str:
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        text += "" if self.track_running_stats else ", track_running_stats=False"
        return (
            text
            if self.virtual_batch_size is None
            else f"{text}, virtual_batch_size={self.virtual_batch_size}"
        )
