r"""Batch Normalization (Ioffe and Szegedy, 2015, arXiv 1502.03167).

Training, per channel, over the n = N·H·W values of a batch:

    μ_B = ⟨x⟩,   σ_B² = ⟨(x − μ_B)²⟩,   x̂ = (x − μ_B) / √(σ_B² + ε),   y = γ x̂ + β
    ∂L/∂x = (σ_B² + ε)^(−1/2) [g − ⟨g⟩ − x̂ ⟨g x̂⟩],   g = γ ∂L/∂y

Evaluation uses running averages of μ_B and σ_B² instead. Implementations differ in three places. Here, as in
torch, x is divided by the biased variance while the running average collects the unbiased one
(Keras averages the biased one); `momentum` is the weight of the new batch (the papers' and
Keras's is the weight of the old value); a single value per channel is refused.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from . import _batch, _checks
from ._batch import BatchStatistics, by_torch, for_each, move, torch_normalize
from ._normalize import Line, batch_normalize


def batch_norm_line(eps: float, mean: Tensor, var: Tensor) -> Line:
    """x̂ = (x − μ_B) / √(σ_B² + ε)."""
    slope = (var + eps).rsqrt()
    return Line(slope, slope_by_var=slope.pow(3) * -0.5)


class BatchNorm(BatchStatistics):
    """Normalize each channel over the batch and all trailing dimensions.

    Args:
        num_features: channels C of an input of shape (N, C, *), any number of trailing dimensions.
        eps: added to the variance; 1e-5 as in torch.
        momentum: weight in [0, 1] of the new batch in the running averages, 0.1 as in torch (the papers' τ is
            1 − momentum); None averages all batches since `reset_running_stats` equally.
        affine: learn γ (`weight`) and β (`bias`), both of shape (C,).
        track_running_stats: keep running averages; without them evaluation uses batch statistics.
        virtual_batch_size: m, take statistics over each m consecutive samples instead of the whole batch,
            as m samples on each of N/m devices would (running averages collect the devices' mean). None: all N.

    Buffers are torch's: `running_mean`, `running_var` (unbiased), `num_batches_tracked`; a state_dict of
    `nn.BatchNorm1d/2d/3d` loads, and the reverse. A statistic that is not finite leaves its running average
    as it was.

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
        super().__init__(num_features, eps, affine, virtual_batch_size)
        self.momentum = None if momentum is None else _checks.unit_interval("momentum", momentum)
        self.track_running_stats = track_running_stats
        if track_running_stats:
            self.add_statistics(running_mean=0, running_var=1)
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._gamma_beta
        running_mean, running_var = self._buffers["running_mean"], self._buffers["running_var"]
        _checks.features(x, self.num_features, running_mean if weight is None else weight)
        tracked = running_mean is not None
        if tracked and not self.training:
            return _batch.evaluate(x, running_mean, running_var, weight, bias, self.eps)
        line, groups, _ = self.plan(x)
        if not by_torch(x, groups, statistics=False):
            y, mean, var = batch_normalize(x, weight, bias, line, groups=groups)
            self.learn(mean, var, x.numel() // mean.numel())
            return y
        mean = var = None
        if tracked:
            mean, var = running_mean.clone(), running_var.clone()
        weight, bias, mean, var = (for_each(groups, v) for v in (weight, bias, mean, var))
        y, mean = torch_normalize(x, weight, bias, self.eps, groups, mean, var)
        if tracked:
            if groups > 1:
                mean, var = mean.view(groups, -1).mean(0), var.view(groups, -1).mean(0)
            self._move(mean, var)
        return y

    _version = 2  # as torch's: before it, no count of batches was stored

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest) -> None:
        count = self._buffers["num_batches_tracked"]
        if count is not None and (local_metadata.get("version") or 1) < 2:
            state_dict.setdefault(f"{prefix}num_batches_tracked", torch.zeros_like(count, device="cpu"))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def plan(self, x: Tensor) -> tuple[Callable[..., Line], int, tuple[()]]:
        """The line of a training step on x, its number of virtual batches, and the history that it needs: none."""
        groups = _checks.batch_groups(x, self.virtual_batch_size if self.training else None)
        return partial(batch_norm_line, self.eps), groups, ()

    def learn(self, mean: Tensor, var: Tensor, n: int) -> None:
        """Move the running averages by biased statistics of shape (groups, C), each of n values."""
        if self._buffers["running_mean"] is not None:
            self._move(mean.mean(0), var.mean(0) * (n / (n - 1)))

    def _move(self, mean: Tensor, var: Tensor) -> None:
        running_mean, running_var = self._buffers["running_mean"], self._buffers["running_var"]
        count = self._buffers["num_batches_tracked"].add_(1)
        if self.momentum is None:
            running_mean.add_((mean - running_mean).nan_to_num(0.0, 0.0, 0.0) / count)
            running_var.add_((var - running_var).nan_to_num(0.0, 0.0, 0.0) / count)
        else:
            move(running_mean, mean, self.momentum)
            move(running_var, var, self.momentum)

    def _shown(self) -> list[str]:
        return ["momentum", "track_running_stats", *super()._shown()]
