r"""Weight Standardization (Qiao et al., 2019, arXiv 1903.10520).

Per output filter, over its I = C_in/groups · k_h · k_w weights:

    Ŵ = (W − ⟨W⟩) / √(⟨(W − ⟨W⟩)²⟩ + ε),   ∂L/∂W = σ_W^(−1) [G − ⟨G⟩ − Ŵ ⟨G Ŵ⟩],   G = ∂L/∂Ŵ

which is Layer Norm of the flattened filter; the gradient sums to 0 per filter. ε and Bessel's correction
differ in every public version: biased variance with ε inside the root here, as the paper's equation has it, and in
timm (`StdConv2d`, ε = 1e-6); the official repository divides by the unbiased deviation plus 1e-5, smaller by
√((I − 1)/I). A normalization behind the convolution hides the difference.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from . import _checks


def weight_standardize(weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Standardize each filter weight[i] of a tensor (C_out, ...) to mean 0 and variance 1.

    Args:
        weight: floating point, at least 2 values per filter.
        eps: added to the variance; 1e-5 as in the official repository.

    Raises:
        ValueError: a weight not in floating point, of fewer than 2 dimensions or fewer than 2 values per filter;
            eps not above 0.
    """
    _checks.positive_float("eps", eps)
    if not weight.is_floating_point():
        raise ValueError(f"weight must be floating point, got {weight.dtype}")
    if weight.dim() < 2 or weight.shape[1:].numel() < 2:
        raise ValueError(f"weight must have shape (C_out, ...) with 2 values per filter, got {tuple(weight.shape)}")
    return F.layer_norm(weight, weight.shape[1:], eps=eps)


class WSConv2d(nn.Conv2d):
    """`nn.Conv2d` with standardized weights; meant to be followed by a normalization.

    Args:
        ws_eps: ε of `weight_standardize`; all other arguments are nn.Conv2d's.

    Raises:
        ValueError: ws_eps not above 0; filters of fewer than 2 weights.
    """

    def __init__(self, *args, ws_eps: float = 1e-5, **options):
        super().__init__(*args, **options)
        self.ws_eps = _checks.positive_float("ws_eps", ws_eps)
        weight_standardize(self.weight.detach(), self.ws_eps)  # refuse 1-weight filters now, not in training

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, weight_standardize(self.weight, self.ws_eps), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ws_eps={self.ws_eps}"
