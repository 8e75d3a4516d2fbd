r"""Batch-Channel Normalization (Qiao et al., 2019, arXiv 1903.10520): Batch Norm, then Group Norm.

    ẋ = BN(x) with γ, β per channel,   y = γ' GN(ẋ) + β' with γ', β' per group

For micro-batches Batch Norm is replaced by running estimates, updated first and then used, without gradient:

    μ̂' = (1 − ρ) μ̂ + ρ μ_B,   σ̂²' = (1 − ρ) σ̂² + ρ ⟨(x − μ̂)²⟩,   ẋ = γ (x − μ̂')/√(σ̂²' + ε) + β

The variance is centered on the old μ̂. The backward pass of this half is g/√(σ̂²' + ε); gradients flow normally
through the Group Norm. In the published micro-batch code the rate ρ starts at 0 and nothing sets it, so that most
copies never learn the statistics; here it is `momentum`. The per-group affine has shape (1, G, 1) in the official code.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active

from . import _checks
from ._batch import AllOrNothing, BatchStatistics, move, snapshot
from ._normalize import Line, batch_normalize
from .batch_norm import BatchNorm
from .group_norm import group_normalize


def _estimate_line(eps, rate, mean: Tensor, var: Tensor, old_mean: Tensor, old_var: Tensor) -> Line:
    square = var + (mean - old_mean).square()  # ⟨(x − μ̂)²⟩
    slope = ((1 - rate) * old_var + rate * square + eps).rsqrt().detach()
    offset = ((1 - rate) * (mean - old_mean)).detach() * slope  # μ_B − μ̂', in units of σ̂'
    # ∂x̂/∂x = slope: the statistics pass no gradient, and the added 0 says so to a second derivative too
    return Line(slope, offset + (mean - mean.detach()) * slope, offset_by_mean=slope)


def _transformed() -> bool:
    """Whether torch.compile or torch.func, which have no hooks on saved tensors, is at work."""
    return torch.compiler.is_compiling() or _are_functorch_transforms_active()


def _place(tensor: Tensor) -> tuple:
    """Equal for tensors that are one in memory."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


class _EstimateNorm(BatchStatistics):
    """The micro-batch half: normalize by running estimates that are updated first."""

    def __init__(self, num_features, eps, momentum, affine, virtual_batch_size):
        super().__init__(num_features, eps, affine, virtual_batch_size)
        self.momentum = _checks.unit_interval("momentum", momentum)
        self.add_statistics(running_mean=0, running_var=1)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, False, 0.0, self.eps)
        history = old_mean, _ = snapshot(self.running_mean, self.running_var)
        y, mean, var = self.normalize(x, history)
        self.num_batches_tracked.add_(1)
        move(self.running_mean, mean.mean(0), self.momentum)
        move(self.running_var, (var + (mean - old_mean).square()).mean(0), self.momentum)
        return y

    def normalize(self, x: Tensor, history: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What training makes of x, and its statistics, each of shape (groups, C)."""
        groups = _checks.batch_groups(x, self.virtual_batch_size, least=1)
        line = partial(_estimate_line, self.eps, self.momentum)
        return batch_normalize(x, self.weight, self.bias, line, groups=groups, history=history)

    def _shown(self) -> list[str]:
        return ["momentum", *super()._shown()]


class BatchChannelNorm(AllOrNothing):
    """Normalize over the batch, or by running estimates, and then over groups of channels.

    Args:
        num_features: channels C of an input of shape (N, C, *), any number of trailing dimensions.
        num_groups: G, a divisor of C; 32 as in the official code.
        eps: added to both variances; 1e-5 as in the official code.
        momentum: weight in [0, 1] of the new batch in the running statistics; with `estimate` the rate ρ, which
            at 0 never learns.
        estimate: normalize by running estimates in training too, for batches of 1 or 2 samples.
        affine: learn `batch.weight` and `batch.bias` per channel, `weight` and `bias`, shape (G,), per group.
        virtual_batch_size: m, batch statistics over each m consecutive samples. None: the whole batch.

    The first half is the submodule `batch`, with torch's buffer names. For the backward pass the layer keeps its input
    alone and makes that of the second half of it again; both are kept where channels are innermost in memory, where
    `batch` has hooks, and under torch.compile and torch.func.

    Raises:
        ValueError: an argument outside its range, num_groups that does not divide num_features; in `forward` as
            `BatchNorm` and `GroupNorm`, though with `estimate` one value per channel suffices.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 32,
        eps: float = 1e-5,
        momentum: float = 0.1,
        estimate: bool = False,
        affine: bool = True,
        virtual_batch_size: int | None = None,
    ):
        super().__init__()
        self.num_features = _checks.positive_integer("num_features", num_features)
        self.num_groups = _checks.divisor("num_groups", num_groups, num_features)
        self.eps = _checks.positive_float("eps", eps)
        self.estimate = estimate
        self.affine = affine
        if estimate:
            self.batch = _EstimateNorm(num_features, eps, momentum, affine, virtual_batch_size)
        else:
            self.batch = BatchNorm(num_features, eps, momentum, affine, True, virtual_batch_size)
        self.register_parameter("weight", nn.Parameter(torch.ones(num_groups)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_groups)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        _checks.features(x, self.num_features)
        _checks.sample_groups(x, self.num_groups)  # before the statistics move
        weight, bias = self.weight, self.bias
        if weight is not None:
            each = self.num_features // self.num_groups
            weight, bias = weight.repeat_interleave(each), bias.repeat_interleave(each)
        batch = self.batch
        hooked = batch._forward_hooks or batch._forward_pre_hooks  # which may change what the half returns
        if not (batch.training and torch.is_grad_enabled()) or hooked or _transformed():
            return group_normalize(batch(x), self.num_groups, weight, bias, self.eps)
        again = self._repeated(x)
        z = batch(x)
        # Of the two activations that the halves need in the backward pass only x is kept; z is made of it once more.
        place = _place(z)  # not z, which the hooks would keep
        pack, unpack = (lambda t: None if _place(t) == place else t), (lambda t: again() if t is None else t)
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return group_normalize(z, self.num_groups, weight, bias, self.eps)

    def _repeated(self, x: Tensor) -> Callable[[], Tensor]:
        """A function that gives the training output of `batch` for x again, and moves nothing."""
        if not self.estimate:
            return torch.no_grad()(lambda: self.batch.normalize(x)[0])
        history = snapshot(self.batch.running_mean, self.batch.running_var)
        return torch.no_grad()(lambda: self.batch.normalize(x, history)[0])

    def extra_repr(self) -> str:
        return f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, estimate={self.estimate}"
