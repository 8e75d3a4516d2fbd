r"""Mean-only Batch Normalization (Salimans and Kingma, 2016, arXiv 1602.07868).

Training, per channel, over the n values of a batch:

    μ_B = ⟨x⟩,   x̂ = x − μ_B,   y = γ x̂ + β
    ∂L/∂x = g − ⟨g⟩,   g = γ ∂L/∂y

Evaluation uses a running average of μ_B instead. The paper puts the layer behind standardized weights, which carry the
scale, and so has β alone; γ is here as in the other layers, and γ = 1 is the paper's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks
from ._batch import BatchStatistics, move
from ._normalize import Line, batch_normalize


def _line(mean: Tensor, var: Tensor) -> Line:
    return Line(torch.ones_like(var))


class MeanOnlyBatchNorm(BatchStatistics):
    """Subtract each channel's mean over the batch and all trailing dimensions; divide by nothing.

    Args:
        num_features: channels C of an input of shape (N, C, *), any number of trailing dimensions.
        eps: without effect; taken because `convert_norm` hands every layer the ε of the one it replaces.
        momentum: weight in [0, 1] of the new batch in the running mean; 0.1 as in torch's Batch Norm.
        affine: learn γ (`weight`) and β (`bias`), both of shape (C,).
        virtual_batch_size: m, take means over each m consecutive samples. None: the whole batch.

    Buffers: `running_mean`, `num_batches_tracked`.

    Raises:
        ValueError: an argument outside its range; in `forward` as `BatchNorm`.
    """

    folds = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        virtual_batch_size: int | None = None,
    ):
        super().__init__(num_features, eps, affine, virtual_batch_size)
        self.momentum = _checks.unit_interval("momentum", momentum)
        self.add_statistics(running_mean=0)

    def forward(self, x: Tensor) -> Tensor:
        _checks.features(x, self.num_features, self.running_mean)
        weight, bias, running_mean = self.weight, self.bias, self.running_mean
        if not self.training:
            tiny = torch.finfo(running_mean.dtype).tiny  # torch wants an ε
            return F.batch_norm(x, running_mean, torch.ones_like(running_mean), weight, bias, False, 0.0, tiny)
        groups = _checks.batch_groups(x, self.virtual_batch_size)
        y, mean, _ = batch_normalize(x, weight, bias, _line, groups=groups)
        self.num_batches_tracked.add_(1)
        move(running_mean, mean.mean(0), self.momentum)
        return y

    def _shown(self) -> list[str]:
        return ["momentum", *super()._shown()]
