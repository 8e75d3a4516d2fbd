r"""Batch-Channel Normalization (Qiao et al., 2019, arXiv 1903.10520): Batch Norm, then Group Norm.

    ẋ = BN(x) with γ, β per channel,   y = γ' GN(ẋ) + β' with γ', β' per group

For micro-batches Batch Norm is replaced by running estimates, updated first and then used, without gradient:

    μ̂' = (1 − ρ) μ̂ + ρ μ_B,   σ̂²' = (1 − ρ) σ̂² + ρ ⟨(x − μ̂)²⟩,   ẋ = γ (x − μ̂')/√(σ̂²' + ε) + β

The variance is centered on the old μ̂. The backward pass of this half is g/√(σ̂²' + ε); gradients flow normally
through the Group Norm. In the published micro-batch code the rate ρ starts at 0 and nothing sets it, so that most
copies never learn the statistics; here it is `momentum`. The per-group affine has shape (1, G, 1) in the official code.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active
from torch.nn.modules import module as modules

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


class _GroupNormalizeAgain(torch.autograd.Function):
    """Group Norm of z = first(x, γ, β), where of the two activations x alone is kept: z is made of it again."""

    @staticmethod
    def forward(ctx, first, num_groups, eps, z, x, gamma, beta, weight, bias):
        ctx.first, ctx.num_groups, ctx.eps = first, num_groups, eps
        ctx.save_for_backward(x, gamma, beta, weight, bias)
        return group_normalize(z, num_groups, weight, bias, eps)

    @staticmethod
    def backward(ctx, dy):
        x, gamma, beta, *affine = ctx.saved_tensors
        twice = torch.is_grad_enabled()  # the gradient itself will be differentiated
        z = ctx.first(x, gamma, beta)
        if not twice:
            z = z.detach().requires_grad_()
            affine = [v if v is None else v.detach().requires_grad_(v.requires_grad) for v in affine]
        with torch.enable_grad():
            y = group_normalize(z, ctx.num_groups, *affine, ctx.eps)
            learned = [v for v in affine if v is not None and v.requires_grad]
            dz, *rest = torch.autograd.grad(y, [z, *learned], dy, create_graph=twice)
        found = iter(rest)
        grads = (next(found) if v is not None and v.requires_grad else None for v in affine)
        return None, None, None, dz, None, None, None, *grads


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


def _as_it_is(batch: nn.Module) -> bool:
    """Whether nothing stands between a call of `batch` in training and its `normalize`, nor transforms autograd."""
    hooks = (batch._forward_hooks, batch._forward_pre_hooks, modules._global_forward_hooks)
    return (
        type(batch) in (BatchNorm, _EstimateNorm)
        and batch.training
        and not any((*hooks, modules._global_forward_pre_hooks, "forward" in vars(batch)))
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing() or _are_functorch_transforms_active())
    )


def _repeated(batch: nn.Module) -> Callable[[Tensor, Tensor | None, Tensor | None], Tensor]:
    """A function (x, γ, β) → what `batch` makes of x in training as it is now; it moves nothing."""
    twin = copy.copy(batch)  # mode, eps, momentum, virtual_batch_size
    history = (snapshot(batch.running_mean, batch.running_var),) if type(batch) is _EstimateNorm else ()

    def normalize(x, gamma, beta):
        twin._parameters = {"weight": gamma, "bias": beta}
        return twin.normalize(x, *history)[0]

    return normalize


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
    alone and makes that of the second half of it again; both are kept where `batch` has hooks or is in evaluation, and
    under torch.compile, torch.jit.trace and torch.func.

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
        if not torch.is_grad_enabled() or not _as_it_is(batch):
            return group_normalize(batch(x), self.num_groups, weight, bias, self.eps)
        first = _repeated(batch)
        z = batch(x)
        return _GroupNormalizeAgain.apply(
            first, self.num_groups, self.eps, z, x, batch.weight, batch.bias, weight, bias
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, estimate={self.estimate}"
