"""Normalization layers, one file per method."""

from .batch_channel_norm import BatchChannelNorm
from .batch_norm import BatchNorm
from .batch_renorm import BatchRenorm
from .group_norm import GroupNorm, InstanceNorm, LayerNorm
from .momentum_batch_norm import MomentumBatchNorm
from .weight_standardization import WSConv2d, weight_standardize

__all__ = [
    "BatchChannelNorm",
    "BatchNorm",
    "BatchRenorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "MomentumBatchNorm",
    "WSConv2d",
    "weight_standardize",
]
