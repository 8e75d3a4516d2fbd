"""Refusals shared by all layers: each names the argument, its value and what is allowed."""

import math
from numbers import Integral

import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active
from torch.autograd import forward_ad

HALF = (torch.float16, torch.bfloat16)


def positive_integer(name: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


def positive_float(name: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0 and finite, got {value!r}")
    return float(value)


def at_least(name: str, value, bound: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= bound:
        raise ValueError(f"{name} must be a number of at least {bound}, got {value!r}")
    return float(value)


def unit_interval(name: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")
    return float(value)


def features(x: Tensor, num_features: int, like: Tensor | None = None) -> None:
    """Refuse an input that is not (N, C, *) in floating point with C = num_features.

    like: a parameter or statistic of the layer, whose dtype x must have, or half precision beside float32.
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point, got {x.dtype}; convert it, for example x.float()")
    if x.dim() < 2:
        raise ValueError(f"x must have shape (N, C, *) with a batch dimension, got {tuple(x.shape)}")
    if x.shape[1] != num_features:
        raise ValueError(f"x must have C = num_features = {num_features} channels, got shape {tuple(x.shape)}")
    if like is not None and x.dtype != like.dtype and not (x.dtype in HALF and like.dtype == torch.float32):
        raise ValueError(
            f"x must have the layer's dtype {like.dtype}, or half precision beside float32, got {x.dtype}; "
            "convert one of them, for example x.to(layer.weight.dtype)"
        )


def batch_groups(x: Tensor, virtual_batch_size: int | None, least: int = 2) -> int:
    """Return the number of virtual batches in x; refuse sets of fewer than `least` values, too small for a variance."""
    n = x.shape[0]
    if virtual_batch_size is not None and (n == 0 or n % virtual_batch_size):
        raise ValueError(
            f"the batch size must be a positive multiple of virtual_batch_size = {virtual_batch_size}, got {n}"
        )
    groups = 1 if virtual_batch_size is None else n // virtual_batch_size
    values = x.numel() // (groups * x.shape[1])
    if values < least:
        raise ValueError(
            f"x must hold at least {least} values per channel and statistic in training, got {values} "
            f"(shape {tuple(x.shape)}, virtual_batch_size {virtual_batch_size}); "
            "use a larger batch, eval mode, or a layer without batch statistics"
        )
    return groups


def sample_groups(x: Tensor, num_groups: int) -> None:
    """Refuse groups of a single value within a sample: they have no variance."""
    if x.numel() < 2 * x.shape[0] * num_groups:
        raise ValueError(
            f"x must hold at least 2 values per sample and group, got shape {tuple(x.shape)} "
            f"with num_groups {num_groups}"
        )


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def divisor(name: str, value, number: int) -> int:
    """Refuse a value that does not divide number."""
    positive_integer(name, value)
    if number % value:
        near = min(divisors(number), key=lambda d: (abs(d - value), d))
        raise ValueError(f"{name} must divide the {number} channels, got {value}; the nearest divisor is {near}")
    return value


def precision(x: Tensor) -> torch.dtype:
    """Half-precision inputs are normalized in float32: their sums overflow or lose everything."""
    return torch.float32 if x.dtype in HALF else x.dtype


def plain(x: Tensor) -> bool:
    """Whether x is values on a CPU and no more: elsewhere no choice may depend on a value, nor a kernel be unknown.

    Not so for a subclass of Tensor, nor while something traces, transforms, compiles or looks on.
    """
    return (
        not torch.compiler.is_compiling()  # first: a compiler that goes for one graph cannot look into the others
        and type(x) in (Tensor, nn.Parameter)
        and x.is_cpu
        and forward_ad._current_level < 0
        and not torch._C._len_torch_dispatch_stack()
        and not (torch.jit.is_tracing() or _are_functorch_transforms_active())
    )
