r"""The one normalization, with its gradient, that every method on batch statistics shares.

A method maps x to  y = γ x̂ + β  with, per channel,

    x̂ = a (x − μ_B) + d,

where μ_B and σ_B² are the batch's mean and biased variance, the slope a is a function of σ_B² and the
offset d of both (and of what is constant for the gradient: a history, Batch Renorm's r and d). Writing ⟨·⟩
for the mean over the n values that share μ_B, and g = γ ∂L/∂y, the chain rule gives

    ∂L/∂x = a g + (∂d/∂μ_B − a) ⟨g⟩ + 2 (x − μ_B) [ ∂a/∂σ_B² ⟨g (x − μ_B)⟩ + ∂d/∂σ_B² ⟨g⟩ ]
    ∂L/∂γ = Σ ∂L/∂y x̂,    ∂L/∂β = Σ ∂L/∂y.

Batch Norm is a = (σ_B² + ε)^(−1/2), d = 0; the other methods differ in `Line` alone. One tensor of the
input's size, the input itself, is saved for the backward pass.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active
from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor

from ._checks import plain, precision
from ._rows import as_image, moments_of, rows_like, rows_of, sums

# Values of which two or three tensors stay in the last cache before the memory.
_CACHED = 1 << 19


class Line(NamedTuple):
    """x̂ = slope (x − μ_B) + offset, and how both move with the batch; None stands for 0."""

    slope: Tensor
    offset: Tensor | None = None
    slope_by_var: Tensor | None = None  # ∂slope/∂σ_B²
    offset_by_mean: Tensor | None = None  # ∂offset/∂μ_B
    offset_by_var: Tensor | None = None  # ∂offset/∂σ_B²

    def through(self, sum_g: Tensor, sum_gx: Tensor) -> tuple[Tensor, Tensor | None]:
        """∂d/∂μ_B − a, and [∂a/∂σ_B² Σg(x − μ_B) + ∂d/∂σ_B² Σg]: what reaches x through the statistics."""
        by_mean = -self.slope if self.offset_by_mean is None else self.offset_by_mean - self.slope
        by_var = None if self.slope_by_var is None else self.slope_by_var * sum_gx
        if self.offset_by_var is not None:
            by_var = self.offset_by_var * sum_g if by_var is None else by_var + self.offset_by_var * sum_g
        return by_mean, by_var


class Layout(NamedTuple):
    """How x is seen while it is reduced: statistics have shape `stat`, γ and β `channel`."""

    shape: tuple[int, ...]
    dims: tuple[int, ...]
    stat: tuple[int, ...]
    channel: tuple[int, ...]
    last: bool  # channels are innermost in memory
    n: int  # values that share a statistic


def innermost(x: Tensor) -> bool:
    """Whether channels are innermost in memory, with positions around them."""
    return x.dim() > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def layout_of(x: Tensor, groups: int) -> Layout:
    N, C = x.shape[:2]
    L = x.numel() // (N * C)
    n = N // groups * L
    if L == 1 or innermost(x):
        return Layout((groups, n, C), (1,), (groups, 1, C), (1, 1, C), True, n)
    return Layout((groups, N // groups, C, L), (1, 3), (groups, 1, C, 1), (1, 1, C, 1), False, n)


def seen_as(x: Tensor, layout: Layout) -> Tensor:
    return (x.movedim(1, -1) if layout.last else x).reshape(layout.shape)


def as_before(x: Tensor, layout: Layout, like: Tensor) -> Tensor:
    """Undo `seen_as`, keeping the memory order."""
    return as_image(x, like) if layout.last else x.reshape(like.shape)


def sum_of_squares(x: Tensor, layout: Layout) -> Tensor:
    if layout.last:
        return x.square().sum(layout.dims, keepdim=True)
    # torch's only fused square-and-sum; it is vectorised along the innermost dimension alone
    return torch.linalg.vector_norm(x, dim=3, keepdim=True).square().sum(1, keepdim=True)


def in_parts(layout: Layout, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Large tensors in runs of samples small enough that the next pass finds them in the cache; not virtual batches."""
    groups, samples = layout.shape[:2]
    few = max(1, _CACHED * samples // tensors[0].numel())
    if layout.last or groups > 1 or samples <= few or not all(map(plain, tensors)):
        return [tensors]
    return zip(*(tensor.split(few, 1) for tensor in tensors), strict=True)


def centered_on(near: Tensor, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """x − near, and the sums of its values and of their squares."""
    if _anew(x, near):
        centered = x - near
        return centered, centered.sum(layout.dims, keepdim=True), sum_of_squares(centered, layout)
    centered, found = torch.empty_like(x), []
    for part, of in in_parts(layout, centered, x):
        torch.sub(of, near, out=part)
        found.append((part.sum(layout.dims, keepdim=True), sum_of_squares(part, layout)))
    total, squares = (reduce(torch.add, v) for v in zip(*found, strict=True))
    return centered, total, squares


def batched(x: Tensor) -> bool:
    """Whether torch.func.vmap is at work on x, or what torch.autograd.grad(is_grads_batched=True) still has for it."""
    return is_batchedtensor(x) or (not torch.compiler.is_compiling() and is_legacy_batchedtensor(x))


def _fixed(x: Tensor, *others: Tensor) -> bool:
    """Whether one of the others is `batched` and x is not, which then cannot be changed in place."""
    return not batched(x) and any(batched(other) for other in others)


def _anew(*tensors: Tensor) -> bool:
    """Whether results need memory of their own: torch.func.vmap and torch.compile have no rule for `out=`."""
    return torch.compiler.is_compiling() or any(map(batched, tensors))


def by_autograd(function, inputs, needed, dy: Tensor, twice: bool) -> tuple[Tensor | None, ...]:
    """Those gradients of function(*inputs) that are needed, within a backward pass, which may be differentiated too."""
    with torch.enable_grad():
        # by other names, or a way from one of them to another would count here and outside
        named = [v if v is None else v.view_as(v) for v in inputs]
        y = function(*named)
    used = [v for v, use in zip(named, needed, strict=True) if use]
    found = iter(torch.autograd.grad(y, used, dy, create_graph=twice))
    return tuple(next(found) if use else None for use in needed)


class _BatchNormalize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias, groups, line, *history):
        layout = layout_of(x, groups)
        seen = seen_as(x, layout).to(precision(x))
        # Centred first, because E[x²] − E[x]² cancels where the mean is large: on the mean of a sixteenth of the
        # samples, which is at most √15 σ_B from μ_B, so that the rest of the mean is found without cancellation.
        near = seen[:, : -(-seen.shape[1] // 16)].mean(layout.dims, keepdim=True)
        centered, total, squares = centered_on(near, seen, layout)
        rest = total / layout.n
        mean = near + rest
        var = (squares / layout.n - rest.square()).clamp(min=0)
        a, d, *_ = line(mean, var, *(h.view(layout.channel) for h in history))
        shift = -a * rest if d is None else d - a * rest
        if weight is not None:
            weight, bias = weight.view(layout.channel), bias.view(layout.channel)
            a = a * weight
            shift = shift * weight + bias
        if _fixed(centered, a, shift):
            y = centered * a + shift
        else:
            for (part,) in in_parts(layout, centered):
                part.mul_(a).add_(shift)
            y = centered
        C = x.shape[1]
        # detached: a view must not leave the function, or an in-place activation behind it is refused
        y = as_before(y.to(x.dtype), layout, x).detach()
        return y, mean.view(groups, C), var.view(groups, C)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.groups, ctx.line, *history = inputs
        ctx.histories = len(history)
        _, mean, var = output
        ctx.mark_non_differentiable(mean, var)
        ctx.save_for_backward(x, weight, mean, var, *history)

    @staticmethod
    def backward(ctx, dy, *_):
        x, weight, mean, var, *history = ctx.saved_tensors[: 4 + ctx.histories]
        layout = layout_of(x, ctx.groups)
        seen, dy = seen_as(x, layout).to(precision(x)), seen_as(dy, layout).to(precision(x))
        twice = torch.is_grad_enabled()  # the gradient itself will be differentiated
        if twice:  # through the statistics too, so they are taken from x again
            mean = seen.mean(layout.dims, keepdim=True)
            var = (seen - mean).square().mean(layout.dims, keepdim=True)
        else:
            mean, var = mean.view(layout.stat), var.view(layout.stat)
        line = ctx.line(mean, var, *(h.view(layout.channel) for h in history))
        a, d = line.slope, line.offset

        anew = twice or _anew(seen, mean, dy)
        if anew:
            sum_g = dy.sum(layout.dims, keepdim=True)
            sum_gx = ((seen - mean) * dy).sum(layout.dims, keepdim=True)
        else:
            buffer, found = torch.empty_like(seen), []
            for part, of, along in in_parts(layout, buffer, seen, dy):
                torch.sub(of, mean, out=part).mul_(along)
                found.append([v.sum(layout.dims, keepdim=True) for v in (along, part)])
            sum_g, sum_gx = (reduce(torch.add, v) for v in zip(*found, strict=True))

        dweight = dbias = None
        scaled = a
        by_mean, by_var = line.through(sum_g, sum_gx)
        if weight is not None:
            dweight = a * sum_gx if d is None else a * sum_gx + d * sum_g
            dweight = dweight.sum(0).reshape(weight.shape).to(weight.dtype)
            dbias = sum_g.sum(0).reshape(weight.shape).to(weight.dtype)
            weight = weight.view(layout.channel)
            scaled = a * weight
            by_mean = by_mean * weight
            by_var = None if by_var is None else by_var * weight

        shift = by_mean * sum_g / layout.n
        if by_var is None:
            dx = dy * scaled + shift
        else:
            tilt = by_var * (2 / layout.n)
            constant = shift - tilt * mean
            if anew or _anew(tilt, constant, scaled):
                dx = (seen * tilt + constant).addcmul(dy, scaled)
            else:  # in memory that is there: to get as much anew takes longer than to fill it
                for part, of, along in in_parts(layout, buffer, seen, dy):
                    torch.mul(of, tilt, out=part).add_(constant).addcmul_(along, scaled)
                dx = buffer
        dx = as_before(dx.to(x.dtype), layout, x)
        return dx, dweight, dbias, None, None, *(None for _ in history)


class _Direct(torch.autograd.Function):
    """The same without what torch.func needs, which takes a quarter of a small tensor's forward pass."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _BatchNormalize.forward(*inputs)
        _BatchNormalize.setup_context(ctx, inputs, output)
        return output

    backward = _BatchNormalize.backward


class _Rows(torch.autograd.Function):
    """The same in fewer passes over memory, and fewer calls, where `moments_of` can read x by rows."""

    @staticmethod
    def forward(ctx, *inputs):
        x, weight, bias, groups, line, *history = inputs
        found = moments_of(x, groups)
        ctx.by_rows = found is not None
        if found is None:
            return _Direct.forward(ctx, *inputs)
        rows, mean, var = found
        through = line(mean, var, *history)
        a, d = through.slope, through.offset
        if weight is not None:
            a = a * weight
            d = bias if d is None else torch.addcmul(bias, d, weight)
        shift = -a * mean if d is None else torch.addcmul(d, a, mean, value=-1)
        y = as_image(torch.addcmul(shift, rows, a).to(x.dtype), x).detach()
        ctx.histories, ctx.groups, ctx.line = len(history), groups, line
        ctx.save_for_backward(x, weight, mean, var, *history, *through)
        mean, var = mean.view(groups, -1), var.view(groups, -1)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx, dy, *others):
        x, weight, mean, _, *rest = ctx.saved_tensors
        rows = rows_of(x, ctx.groups) if ctx.by_rows else None
        if rows is None or torch.is_grad_enabled() or batched(dy):
            return _BatchNormalize.backward(ctx, dy, *others)
        line = Line(*rest[ctx.histories :])
        dy = rows_like(dy, rows)
        n = rows.shape[-2]
        sum_g, sum_gx = sums(dy, rows, mean)
        a, d = line.slope, line.offset
        by_mean, by_var = line.through(sum_g, sum_gx)
        dweight = dbias = None
        if weight is not None:
            dweight = a * sum_gx if d is None else torch.addcmul(a * sum_gx, d, sum_g)
            dbias = sum_g
            if ctx.groups > 1:
                dweight, dbias = dweight.sum((0, 1)), dbias.sum((0, 1))
            a, by_mean = a * weight, by_mean * weight
            by_var = None if by_var is None else by_var * weight
        shift = (by_mean * sum_g).div_(n)
        if by_var is None:
            dx = torch.addcmul(shift, dy, a)
        else:
            tilt = by_var * (2 / n)
            dx = torch.addcmul(torch.addcmul(shift, tilt, mean, value=-1), rows, tilt).addcmul_(dy, a)
        # autograd itself gives each gradient its input's dtype
        return as_image(dx, x), dweight, dbias, None, None, *(None for _ in range(ctx.histories))


def batch_normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    line: Callable[..., Line],
    *,
    groups: int = 1,
    history: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize x (N, C, *) over `groups` runs of N/groups consecutive samples each.

    `line(mean, var, *history)` gets the biased batch statistics and the history, shaped to broadcast
    against each other, and returns the `Line`. History tensors, of shape (C,), get no gradient; pass copies of
    buffers that change afterwards. Returns y like x and the statistics of shape (groups, C), detached.
    """
    if _are_functorch_transforms_active():
        kind = _BatchNormalize
    else:
        kind = _Direct if torch.compiler.is_compiling() else _Rows
    # without gradients no Function is needed, nor does torch.compile understand one there
    normalize = kind.apply if torch.is_grad_enabled() else _BatchNormalize.forward
    y, mean, var = normalize(x, weight, bias, groups, line, *history)
    return y, mean.detach(), var.detach()  # torch.compile forgets mark_non_differentiable
