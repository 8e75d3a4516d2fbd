r"""Batch-Channel Normalization (Qiao et al., 2019, arXiv 1903.10520): Batch Norm, then Group Norm.

    ẋ = BN(x) with γ, β per channel,   y = γ' GN(ẋ) + β' with γ', β' per group

For micro-batches Batch Norm is replaced by running estimates, updated first and then used, without gradient:

    μ̂' = (1 − ρ) μ̂ + ρ μ_B,   σ̂²' = (1 − ρ) σ̂² + ρ ⟨(x − μ̂)²⟩,   ẋ = γ (x − μ̂')/√(σ̂²' + ε) + β

The variance is centered on the old μ̂. The backward pass of this half is g/√(σ̂²' + ε); gradients flow normally
through the Group Norm. In the published micro-batch code the rate ρ starts at 0 and nothing sets it, so that most
copies never learn the statistics; here it is `momentum`. The per-group affine has shape (1, G, 1) in the official code.

In each plane, the positions of one channel of one sample, both halves together are one line, y = A x + B. Its slope and
height follow from the planes' means M and variances V: with ẋ = a x + b by channel,

    μ_B = ⟨M⟩,        σ_B² = ⟨V + (M − μ_B)²⟩                over the samples of a batch
    μ_G = ⟨a M + b⟩,  σ_G² = ⟨a² V + (a M + b − μ_G)²⟩       over the channels of a group

and the gradient, which is Batch Norm's of Group Norm's, from the sums of ∂L/∂y and ∂L/∂y (x − M) over each plane.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active
from torch.autograd import forward_ad
from torch.nn.modules import module as modules

from . import _batch, _checks
from ._batch import AllOrNothing, BatchStatistics, move, snapshot, statistics
from ._checks import precision
from ._normalize import Line, as_before, batch_normalize, batched, by_autograd, layout_of, seen_as, sum_of_squares
from ._rows import moments_of, sums
from .batch_norm import BatchNorm
from .group_norm import group_normalize

# In planes of so few positions, what both halves at once keep of each is not little.
_PLANE = 16


def _few(x: Tensor) -> bool:
    """Whether x is so small that two kernels are quicker than the dozens of calls that both halves at once take."""
    return x.numel() <= _batch._FEW // 8


def _estimate_line(eps, rate, mean: Tensor, var: Tensor, old_mean: Tensor, old_var: Tensor) -> Line:
    ahead = mean.detach() - old_mean
    square = torch.addcmul(var.detach(), ahead, ahead)  # ⟨(x − μ̂)²⟩
    slope = old_var.to(square.dtype).lerp(square, rate).add(eps).rsqrt()
    offset = ahead * slope * (1 - rate)  # μ_B − μ̂', in units of σ̂'
    if torch.is_grad_enabled():  # ∂x̂/∂x = slope, the statistics pass no gradient: said to a second derivative too
        offset = offset + (mean - mean.detach()) * slope
    return Line(slope, offset, offset_by_mean=slope)


class _Planes(NamedTuple):
    """What both halves make of each plane, the positions of one channel of one sample.

    Shapes: (groups, samples, C) or (groups, 1, C), and from `scale` on G, C/G (or 1) for C.
    """

    line: Line  # of the first half
    mean: Tensor  # of the batch
    var: Tensor
    from_batch: Tensor  # the plane's mean less the batch's
    scale: Tensor  # ẋ = scale · x + …
    from_group: Tensor  # the plane's mean of ẋ less that of its group of channels
    inverse: Tensor  # one over ẋ's standard deviation in that group

    @classmethod
    def of(cls, near, rest, var, gamma, beta, num_groups, eps, line, history):
        """From mean (near + rest) and variance in each plane: no sum of squares of large numbers, nor a difference."""
        origin = near[:, :1]  # of each group, that none feels another's
        mean = near - origin + rest
        batch_mean = mean.mean(1, keepdim=True)
        from_batch = mean - batch_mean
        batch_var = torch.addcmul(var, from_batch, from_batch).mean(1, keepdim=True)
        batch_mean = batch_mean + origin
        first = line(batch_mean, batch_var, *history)
        scale, z = first.slope, first.slope * from_batch
        if first.offset is not None:
            z = z + first.offset
        if gamma is not None:
            scale, z = scale * gamma, torch.addcmul(beta, z, gamma)
        scale, z, within = (v.unflatten(-1, (num_groups, -1)) for v in (scale, z, var))
        from_group = z - z.mean(-1, keepdim=True)
        spread = torch.addcmul(from_group.square(), scale.square(), within).mean(-1, keepdim=True)
        return cls(first, batch_mean, batch_var, from_batch, scale, from_group, (spread + eps).rsqrt())


class _BatchChannelNormalize(torch.autograd.Function):
    """Both halves at once. y is a line in x in each plane, and follows from the mean and the variance there.

    So x is read, and kept, as for Batch Norm alone.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, weight, bias, num_groups, eps, line, groups, *history):
        layout = layout_of(x, len(x))
        seen = seen_as(x, layout).to(precision(x))
        # centered first, as in _normalize.py, but in each plane
        found = moments_of(x, len(x))
        if found is None:
            near = seen.narrow(layout.dims[-1], 0, -(-layout.n // 16)).mean(layout.dims, keepdim=True)
            centered = seen - near
            rest = origin = centered.sum(layout.dims, keepdim=True).div_(layout.n)
            var = (sum_of_squares(centered, layout) / layout.n - rest.square()).clamp_(min=0)
        else:
            centered, near, var = found
            rest, origin = torch.zeros_like(near), near
        near, rest, origin, var = (v.view(groups, -1, x.shape[1]) for v in (near, rest, origin, var))
        planes = _Planes.of(near, rest, var, gamma, beta, num_groups, eps, line, history)
        scale, shift = planes.scale * planes.inverse, planes.from_group * planes.inverse
        if weight is not None:
            scale, shift = scale * weight.unsqueeze(-1), shift * weight.unsqueeze(-1) + bias.unsqueeze(-1)
        scale, shift = scale.flatten(-2), shift.flatten(-2) - scale.flatten(-2) * origin
        scale, shift = (v.expand_as(rest).reshape(layout.stat) for v in (scale, shift))
        y = centered.mul_(scale).add_(shift) if found is None else torch.addcmul(shift, centered, scale)
        y = as_before(y.to(x.dtype), layout, x).detach()
        if not (x.dim() in (4, 5) and x.stride(1) == 1):  # as Group Norm returns it
            y = y.contiguous()
        kept = planes.from_batch, planes.scale, planes.from_group, planes.inverse
        ctx.save_for_backward(x, gamma, beta, weight, bias, near, rest, var, *kept, *planes.line, *history)
        ctx.by_rows = found is not None
        ctx.num_groups, ctx.eps, ctx.line, ctx.groups = num_groups, eps, line, groups
        statistics = planes.mean.squeeze(1), planes.var.squeeze(1)
        ctx.mark_non_differentiable(*statistics)
        return y, *statistics

    @staticmethod
    def backward(ctx, dy, *_):
        x, gamma, beta, weight, bias, near, rest, var, from_batch, scale, from_group, inverse, *kept = ctx.saved_tensors
        line, history = Line(*kept[: len(Line._fields)]), kept[len(Line._fields) :]
        others = (None,) * (4 + len(history))
        twice = torch.is_grad_enabled()  # the gradient itself will be differentiated
        if twice or batched(dy):  # of the halves one by one

            def halves(x, gamma, beta, weight, bias):
                z, _, _ = batch_normalize(x, gamma, beta, ctx.line, groups=ctx.groups, history=tuple(history))
                return _second(z, ctx.num_groups, weight, bias, ctx.eps)

            inputs = x, gamma, beta, weight, bias
            return *by_autograd(halves, inputs, ctx.needs_input_grad[:5], dy, twice), *others
        layout = layout_of(x, len(x))
        seen, dy = (seen_as(v, layout).to(near.dtype) for v in (x, dy))
        grouped = (-1, (ctx.num_groups, -1))

        # Σ ∂L/∂y and Σ ∂L/∂y (x − its mean) over each plane
        by_rows = ctx.by_rows and layout.last  # hooks may have changed the order of what was saved
        if by_rows:
            dy = dy.contiguous()
            dy_sum, dyx_sum = (v.view_as(near) for v in sums(dy, seen, near.view(layout.stat)))
        else:
            dy_sum = dy.sum(layout.dims).view_as(near)
            buffer = (seen - near.view(layout.stat)).mul_(dy)
            dyx_sum = buffer.sum(layout.dims).view_as(near) - rest * dy_sum
        g, gx = dy_sum.unflatten(*grouped), dyx_sum.unflatten(*grouped)

        # of each group: the sums of ∂L/∂y and of ∂L/∂y ŷ, ŷ what the Group Norm makes of ẋ
        g_sum = g.sum(-1, keepdim=True)
        gy_sum = torch.addcmul(gx * scale, g, from_group).sum(-1, keepdim=True).mul_(inverse)
        dweight = dbias = None
        slope = inverse  # ∂L/∂ẋ = slope ∂L/∂y − …
        if weight is not None:
            dweight, dbias = (v.sum((0, 1, 3)).to(weight.dtype) for v in (gy_sum, g_sum))
            slope = inverse * weight.unsqueeze(-1)

        # the Group Norm: ∂L/∂ẋ = slope ∂L/∂y − level − pull (x − its mean in the plane), and its sums over each plane
        n = layout.n
        count = n * from_group.shape[-1]
        tilt = (slope * gy_sum).mul_(inverse).div_(count)
        level = torch.addcmul((slope * g_sum).div_(count), tilt, from_group)
        pull = tilt * scale
        by_dy = (slope * scale).expand_as(from_group).flatten(-2)
        g = torch.sub(slope * g, level, alpha=n).flatten(-2)
        gx = torch.sub(slope * gx, pull * var.unflatten(*grouped), alpha=n).flatten(-2)
        level, pull, scale = (v.expand_as(from_group).flatten(-2) for v in (level, pull, scale))

        # the Batch Norm, as in _normalize.py
        gx = torch.addcmul(gx, from_batch, g).sum(1, keepdim=True)
        g = g.sum(1, keepdim=True)
        n = n * near.shape[1]
        by_mean, by_var = line.through(g, gx)
        shift = (by_mean * g).div_(n)
        tilt = torch.zeros_like(g) if by_var is None else by_var * (2 / n)
        dgamma = dbeta = None
        if gamma is not None:
            dgamma = line.slope * gx if line.offset is None else torch.addcmul(line.slope * gx, line.offset, g)
            dgamma, dbeta = dgamma.sum((0, 1)).to(gamma.dtype), g.sum((0, 1)).to(beta.dtype)
            tilt, shift = tilt * gamma, shift * gamma
        by_x = torch.addcmul(tilt, scale, pull, value=-1)
        shift = torch.addcmul(shift, tilt, from_batch).addcmul_(scale, level, value=-1)
        shift.addcmul_(by_x, near + rest, value=-1)
        by_dy, by_x, shift = (v.reshape(layout.stat) for v in (by_dy, by_x, shift))
        # into memory that is there: to get as much anew takes longer than to fill it
        dx = torch.addcmul(shift, seen, by_x) if by_rows else torch.mul(seen, by_x, out=buffer).add_(shift)
        dx.addcmul_(dy, by_dy)
        return as_before(dx.to(x.dtype), layout, x), dgamma, dbeta, dweight, dbias, *others


def _second(z: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """The Group Norm half, with its affine per group."""
    if weight is not None:
        # many times quicker on the way back than repeat_interleave
        weight, bias = (v.unsqueeze(1).expand(-1, z.shape[1] // num_groups).flatten() for v in (weight, bias))
    return group_normalize(z, num_groups, weight, bias, eps)


class _EstimateNorm(BatchStatistics):
    """The micro-batch half: normalize by running estimates that are updated first."""

    def __init__(self, num_features, eps, momentum, affine, virtual_batch_size):
        super().__init__(num_features, eps, affine, virtual_batch_size)
        self.momentum = _checks.unit_interval("momentum", momentum)
        self.add_statistics(running_mean=0, running_var=1)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if not self.training:
            return _batch.evaluate(x, self.running_mean, self.running_var, weight, bias, self.eps)
        line, groups, history = self.plan(x)
        if groups == 1 and _few(x) and precision(x) == x.dtype == self.running_mean.dtype:
            mean, var = statistics(x)
            new = (h.lerp(v, self.momentum) for h, v in zip(history, (mean, self._square(mean, var)), strict=True))
            y = _batch.evaluate(x, *new, weight, bias, self.eps)  # to torch's kernel they are constants
            mean, var = mean.unsqueeze(0), var.unsqueeze(0)
        else:
            y, mean, var = batch_normalize(x, weight, bias, line, groups=groups, history=history)
        self.learn(mean, var, x.numel() // mean.numel())
        return y

    def plan(self, x: Tensor) -> tuple[Callable[..., Line], int, tuple[Tensor, Tensor]]:
        """The line of a training step on x, its number of virtual batches, and the history before it."""
        groups = _checks.batch_groups(x, self.virtual_batch_size, least=1)
        history = snapshot(self.running_mean, self.running_var)
        return partial(_estimate_line, self.eps, self.momentum), groups, history

    def learn(self, mean: Tensor, var: Tensor, _n: int) -> None:
        """Move the estimates by biased statistics of shape (groups, C); of how many values each does not matter."""
        self.num_batches_tracked.add_(1)
        square = self._square(mean, var).mean(0)
        move(self.running_mean, mean.mean(0), self.momentum)
        move(self.running_var, square, self.momentum)

    def _square(self, mean: Tensor, var: Tensor) -> Tensor:
        """⟨(x − μ̂)²⟩, around the old mean."""
        return var + (mean - self.running_mean).square()

    def _shown(self) -> list[str]:
        return ["momentum", *super()._shown()]


_HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def _as_it_is(batch: nn.Module) -> bool:
    """Whether a call of `batch` would be a training step and nothing else, and nothing transforms autograd."""
    return (
        type(batch) in (BatchNorm, _EstimateNorm)
        and batch.training
        and not any(getattr(batch, f"_{kind}") or getattr(modules, f"_global_{kind}") for kind in _HOOKS)
        and "forward" not in vars(batch)
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing() or _are_functorch_transforms_active())
        and forward_ad._current_level < 0  # its derivative is only known backward
    )


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
    and five numbers of each plane; the input of the second half is kept too where it is small (up to 2^15 values, or
    planes of less than 16 positions), where `batch` has hooks or is in evaluation, and under torch.compile,
    torch.jit.trace and torch.func.

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
        batch, weight, bias = self.batch, self.weight, self.bias
        _checks.features(x, self.num_features, weight)
        _checks.sample_groups(x, self.num_groups)  # before the statistics move
        if _few(x) or x.shape[2:].numel() < _PLANE or not torch.is_grad_enabled() or not _as_it_is(batch):
            return _second(batch(x), self.num_groups, weight, bias, self.eps)
        line, groups, history = batch.plan(x)
        y, mean, var = _BatchChannelNormalize.apply(
            x, batch.weight, batch.bias, weight, bias, self.num_groups, self.eps, line, groups, *history
        )
        batch.learn(mean, var, x.numel() // mean.numel())
        return y

    def extra_repr(self) -> str:
        return f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, estimate={self.estimate}"
