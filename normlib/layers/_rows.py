"""Sums over the rows of an input on a CPU whose channels are innermost in memory, by torch's Batch Norm kernels.

They read it once or twice and write nothing, where sums made of single operations would write every difference. One
batch is n rows of C channels, with statistics of shape (C,); several are (groups, n, C) and (groups, 1, C). So small
tensors, whose time is that of the calls, need few.
"""

from functools import lru_cache

import torch
from torch import Tensor

from ._checks import HALF, plain

# Values from which on several groups are worth a call each, and so many of each.
_WORTH, _EACH = 1 << 20, 1 << 14
# Mean over deviation, squared, from which on x is centered before it is scaled: below, x̂ loses two digits at most.
_FAR = 1e3


def rows_of(x: Tensor, groups: int) -> Tensor | None:
    """The rows of x, (N, C, *), in float32 at least.

    None where they do not lie so in memory, where a group is not worth a call, is a single row or of a number of rows
    that does not divide well, and where x is not `plain`.
    """
    if not plain(x) or (groups > 1 and x.numel() < max(_WORTH, groups * _EACH)):
        return None
    if x.dim() > 2:
        if x.is_contiguous() and x.shape[2:].numel() > 1:
            return None
        x = x.movedim(1, -1)
    if not x.is_contiguous():
        return None
    rows = x.view(-1, x.shape[-1]) if groups == 1 else x.view(groups, -1, x.shape[-1])
    if rows.shape[-2] == 1 or not _beside(*rows.shape[-2:]):
        return None
    return rows.float() if x.dtype in HALF else rows


def rows_like(x: Tensor, rows: Tensor) -> Tensor:
    """The rows of another tensor of the same size, whatever its memory order."""
    # contiguous: with the gradient of a sum, one value seen many times, the kernels would be slow
    x = (x if x.dim() == 2 else x.movedim(1, -1)).reshape(rows.shape).contiguous()
    return x.float() if x.dtype in HALF else x


def as_image(rows: Tensor, like: Tensor) -> Tensor:
    """Undo `rows_of`."""
    if like.dim() == 2:
        return rows.reshape(like.shape)
    N, C, *positions = like.shape
    return rows.reshape(N, *positions, C).movedim(-1, 1)


@lru_cache
def _beside(n: int, channels: int) -> int:
    """How many rows, a divisor of n, the kernels see as one.

    They sum row after row in float32, at most 1024 here, and are vectorised along a row, which should not be too short,
    nor so long that what they find is no longer little beside the input: 0 where no divisor is so.
    """
    if n <= 1024:
        return 1
    least = max(-(-n // 1024), -(-64 // channels))
    return next((k for k in range(least, min(4 * least, n // 64) + 1) if n % k == 0), 0)


def _image(rows: Tensor, beside: int) -> Tensor:
    """One image with channels innermost, the kernels' quickest case."""
    n, channels = rows.shape
    return rows.view(1, n // beside, 1, beside * channels).permute(0, 3, 1, 2)


def moments_of(x: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """The rows of x with each group's mean and biased variance, unless the mean's digits would swamp those of x̂."""
    rows = rows_of(x, groups)
    if rows is None:
        return None
    mean, var = moments(rows)
    return None if (mean.square() > _FAR * var).any() else (rows, mean, var)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each group."""
    if rows.dim() == 3:
        found = zip(*(moments(group) for group in rows.unbind()), strict=True)
        mean, var = (torch.stack(v).unsqueeze(1) for v in found)
        return mean, var
    n, channels = rows.shape
    beside = _beside(n, channels)
    mean, var = torch.batch_norm_update_stats(_image(rows, beside), None, None, 1.0)
    if beside == 1:
        return mean, var
    means = mean.view(beside, channels)
    mean = means.mean(0)
    return mean, (means - mean).square_().add_(var.view(beside, channels)).mean(0)


def sums(dy: Tensor, rows: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Σ dy and Σ dy (x − mean) over the rows of each group.

    Batch Norm in evaluation mode, on its way back, sums just that for β and γ where the variance is 1.
    """
    if rows.dim() == 3:
        found = zip(*map(sums, dy.unbind(), rows.unbind(), mean.squeeze(1).unbind()), strict=True)
        sum_g, sum_gx = (torch.stack(v).unsqueeze(1) for v in found)
        return sum_g, sum_gx
    n, channels = rows.shape
    beside = _beside(n, channels)
    if beside > 1:
        mean = mean.expand(beside, channels).flatten()
    mean = mean.contiguous()  # of a single channel, the line above makes a view of one value, which the kernel misreads
    image, one = _image(rows, beside), torch.ones_like(mean)
    _, sum_gx, sum_g = torch.ops.aten.native_batch_norm_backward(
        _image(dy, beside), image, None, mean, one, None, None, False, 0.0, (False, True, True)
    )
    if beside > 1:
        sum_g, sum_gx = (v.view(beside, channels).sum(0) for v in (sum_g, sum_gx))
    return sum_g, sum_gx
