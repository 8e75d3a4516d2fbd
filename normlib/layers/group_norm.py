r"""Group, Layer and Instance Normalization: Batch Norm's formula over index sets within one sample.

    x̂ = (x − μ) / √(σ² + ε),   y = γ x̂ + β,   ∂L/∂x = (σ² + ε)^(−1/2) [g − ⟨g⟩ − x̂ ⟨g x̂⟩],   g = γ ∂L/∂y

with μ, σ² (biased) and ⟨·⟩ over (C/G, H, W) of each sample and group of channels: Group Norm (Wu and He, 2018,
arXiv 1803.08494). One group, over (C, H, W), is Layer Norm as Ba et al. (2016, arXiv 1607.06450) apply it to
images; C groups, over (H, W), Instance Norm (Ulyanov et al., 2016, arXiv 1607.08022). γ and β are per channel
in all three. No running statistics: training and evaluation are one function, and the batch size does not matter.

Implementations differ in what "Layer Norm" means for images: over (C, H, W), here and in the GN paper, or over C
alone at each position (ConvNeXt, `nn.LayerNorm` on channels-last tensors), which is another function.
`nn.InstanceNorm2d` has no γ and β unless asked. torch's kernels already hold this gradient in closed form, so they
do the arithmetic here, the one for channels-last inputs on a CPU within the bounds where it is exact (`_suits`).
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import _checks
from ._batch import one_order
from ._checks import HALF, plain, precision
from ._normalize import batched, by_autograd, innermost

# What torch's channels-last kernel is given. It takes E[x²] − E[x]², summed in float32 position after position, so that
# digits go with the mean over the deviation and with the positions: within these bounds hardly one, or, where nearly
# all positions hold one value, three of seven. It is vectorised along a group's channels, of which there must be so
# many bytes, and on few values the check of the mean takes longer than two copies.
_FAR, _POSITIONS, _VECTOR, _FEW = 2.0, 1 << 10, 32, 1 << 16


class _ChannelsLast(torch.autograd.Function):
    """torch's channels-last kernel, with mean and inverse deviation of each sample and group, shape (N, G)."""

    @staticmethod
    def forward(ctx, x, weight, bias, num_groups, eps):
        N, C, *positions = x.shape
        ctx.sizes, ctx.eps = (N, C, math.prod(positions), num_groups), eps
        y, mean, inverse = torch.native_group_norm(one_order(x), weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, inverse)
        return y, mean, inverse

    @staticmethod
    def backward(ctx, dy, *_):
        x, weight, mean, inverse = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        twice = torch.is_grad_enabled()  # the gradient itself will be differentiated
        if twice or batched(dy) or not innermost(x):  # hooks may have changed the order of what was saved
            # whatever β is, the gradients are the same
            bias = None if weight is None else torch.zeros_like(weight, requires_grad=True)
            inputs = x, weight, bias
            function = partial(_channels_first, num_groups=ctx.sizes[-1], eps=ctx.eps)
            return *by_autograd(function, inputs, needed, dy, twice), None, None
        dx, dweight, dbias = torch.ops.aten.native_group_norm_backward(
            dy.contiguous(memory_format=_memory_format(x)),
            one_order(x),
            mean,
            inverse,
            weight if weight is None else weight.contiguous(),
            *ctx.sizes,
            (True, *needed[1:]),  # without ∂L/∂x the kernel ends the process (2.11)
        )
        return dx, dweight, dbias, None, None


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _suits(x: Tensor, num_groups: int) -> bool:
    """Whether torch's channels-last kernel is quick and, but for a large mean, exact on x."""
    return (
        plain(x)
        and innermost(x)
        and x.dtype not in HALF
        and x.shape[1] // num_groups * x.element_size() >= _VECTOR
        and x.numel() >= _FEW
        and (x.shape[2:].numel() <= _POSITIONS or x.dtype == torch.float64)
    )


def _channels_first(x: Tensor, weight: Tensor | None, bias: Tensor | None, num_groups: int, eps: float) -> Tensor:
    # behind one trailing dimension torch's channels-last kernel is not used
    y = F.group_norm(x.flatten(2), num_groups, weight, bias, eps).view(x.shape)
    return y.contiguous(memory_format=_memory_format(x))


def group_normalize(x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`F.group_norm`, also where torch's own is wrong, channels-last on the CPU with a large mean, or slow."""
    if x.is_cpu and x.dim() == 2 and x.numel() >= 1 << 12 and precision(x) == x.dtype:
        rows = x.reshape(-1, x.shape[1] // num_groups)
        if rows.shape[1] <= 4:  # too short to be vectorised along: across them instead
            values = rows.t().contiguous()
            values = values - values[:1].detach()  # exact where a group is constant, and with a large mean
            centered = values - values.mean(0)
            y = (centered * (centered.square().mean(0) + eps).rsqrt()).t()
        else:  # each a row of Layer Norm, whose kernel is faster
            y = F.layer_norm(rows, rows.shape[1:], eps=eps)
        y = y.reshape(x.shape)
        return y if weight is None else torch.addcmul(bias, y, weight)
    if x.is_cpu and x.dim() in (4, 5) and x.stride(1) == 1:
        if _suits(x, num_groups):
            # contiguous: the kernel reads them value after value, whatever their stride
            weight, bias = (v if v is None else v.contiguous() for v in (weight, bias))
            y, mean, inverse = _ChannelsLast.apply(x, weight, bias, num_groups, eps)
            if not ((mean * inverse).abs() > _FAR).any():
                return y
        return _channels_first(x, weight, bias, num_groups, eps)
    return F.group_norm(x, num_groups, weight, bias, eps)


class GroupNorm(nn.Module):
    """Normalize each sample over groups of C/num_groups channels and all trailing dimensions.

    Args:
        num_features: channels C of an input of shape (N, C, *), any number of trailing dimensions.
        num_groups: G, a divisor of C; 32 as in the paper.
        eps: added to the variance; 1e-5 as in the paper and torch.
        affine: learn γ (`weight`) and β (`bias`), both of shape (C,).

    A state_dict of `nn.GroupNorm` loads, and the reverse.

    Raises:
        ValueError: an argument outside its range, or num_groups that does not divide num_features (the message
            names the nearest divisor); in `forward`, an input that is not floating point or not (N, C, *), or
            fewer than two values per sample and group.
    """

    def __init__(self, num_features: int, num_groups: int = 32, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        self.num_features = _checks.positive_integer("num_features", num_features)
        self.num_groups = _checks.divisor("num_groups", num_groups, num_features)
        self.eps = _checks.positive_float("eps", eps)
        self.affine = affine
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        _checks.features(x, self.num_features, self.weight)
        _checks.sample_groups(x, self.num_groups)
        return group_normalize(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, affine={self.affine}"


class LayerNorm(GroupNorm):
    """Group Norm with one group: each sample is normalized over all its channels and positions (Ba et al., 2016).

    Arguments and errors as in `GroupNorm`, without num_groups.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True):
        super().__init__(num_features, 1, eps, affine)


class InstanceNorm(GroupNorm):
    """Group Norm with a group per channel: each channel of each sample by itself (Ulyanov et al., 2016).

    Arguments and errors as in `GroupNorm`, without num_groups; needs at least two positions per channel.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True):
        super().__init__(num_features, num_features, eps, affine)
