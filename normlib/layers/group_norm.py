r"""Group, Layer and Instance Normalization: Batch Norm's formula over index sets within one sample.

    x̂ = (x − μ) / √(σ² + ε),   y = γ x̂ + β,   ∂L/∂x = (σ² + ε)^(−1/2) [g − ⟨g⟩ − x̂ ⟨g x̂⟩],   g = γ ∂L/∂y

with μ, σ² (biased) and ⟨·⟩ over (C/G, H, W) of each sample and group of channels: Group Norm (Wu and He, 2018,
arXiv 1803.08494). One group, over (C, H, W), is Layer Norm as Ba et al. (2016, arXiv 1607.06450) apply it to
images; C groups, over (H, W), Instance Norm (Ulyanov et al., 2016, arXiv 1607.08022). γ and β are per channel
in all three. No running statistics: training and evaluation are one function, and the batch size does not matter.

Implementations differ in what "Layer Norm" means for images: over (C, H, W), here and in the GN paper, or over C
alone at each position (ConvNeXt, `nn.LayerNorm` on channels-last tensors), which is another function.
`nn.InstanceNorm2d` has no γ and β unless asked. torch's kernel already holds this gradient in closed form, so it
does the arithmetic here (its one numerical fault is stepped around: see `group_normalize`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import _checks
from ._checks import precision


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
        # torch's channels-last kernel takes E[x²] − E[x]², which cancels, and may crash on its way back where x
        # needs no gradient (2.11); behind one trailing dimension it is not used
        y = F.group_norm(x.flatten(2), num_groups, weight, bias, eps).view(x.shape)
        return y.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
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
