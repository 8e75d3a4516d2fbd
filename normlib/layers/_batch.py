"""What the layers on batch statistics have in common: parameters, buffers, running averages, the choice of kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor

from . import _checks
from ._checks import plain, precision
from ._normalize import innermost

# On a CPU one call of torch's kernel beats our few vectorised passes up to so many values (`make bench` shows both
# sides), up to half as many for virtual batches, which must be copied for it. Above, its statistics loop is the slower,
# with channels innermost only from four times as many on, unless the statistics are taken twice.
_FEW = 1 << 18
# Up to so many values a channel, a sum in float32 is exact enough for a mean of 10⁴ deviations.
_MANY = 1 << 10


class AllOrNothing(nn.Module):
    """A module that a refused state_dict, of another method or width, leaves as it was."""

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        tables = [(t, dict(t)) for module in self.modules() for t in (module._parameters, module._buffers)]
        values = [(t, t.detach().clone()) for _, table in tables for t in table.values() if t is not None]
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError:
            with torch.no_grad():
                for tensor, value in values:
                    tensor.copy_(value)
            for table, before in tables:  # assign=True puts other tensors there
                table.update(before)
            raise


class BatchStatistics(AllOrNothing):
    """Base of the layers that take a mean and a variance per channel over (virtual) batches."""

    def __init__(self, num_features: int, eps: float, affine: bool, virtual_batch_size: int | None):
        super().__init__()
        self.num_features = _checks.positive_integer("num_features", num_features)
        self.eps = _checks.positive_float("eps", eps)
        self.affine = affine
        if virtual_batch_size is not None:
            _checks.positive_integer("virtual_batch_size", virtual_batch_size)
        self.virtual_batch_size = virtual_batch_size
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)

    @property
    def _gamma_beta(self) -> tuple[Tensor | None, Tensor | None]:
        """`weight` and `bias`; nn.Module's look-up, slow beside a small batch, only where something stands for them."""
        own = self._parameters
        return (own["weight"], own["bias"]) if "weight" in own and "bias" in own else (self.weight, self.bias)

    def add_statistics(self, **values: float) -> None:
        """Register one buffer of shape (C,) per name, filled with its value, and the count of batches."""
        for name, value in values.items():
            self.register_buffer(name, torch.full((self.num_features,), float(value)))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def reset_running_stats(self) -> None:
        """Return every statistic to where it starts (mean 0, variance or deviation 1) and the count to 0."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                buffer.fill_(1 if name.endswith(("_var", "_std")) else 0)

    def extra_repr(self) -> str:
        text = ", ".join(f"{name}={getattr(self, name)}" for name in self._shown())
        return f"{self.num_features}, {text}"

    def _shown(self) -> list[str]:
        shown = ["eps", "affine"]
        return shown if self.virtual_batch_size is None else [*shown, "virtual_batch_size"]


def by_torch(x: Tensor, groups: int, statistics: bool = True) -> bool:
    """Whether torch's own kernel is at least as fast as ours on this input, `statistics` taken by another pass."""
    if not x.is_cpu:
        return True
    if groups > 1:  # in half precision the kernel would keep the many statistics in that precision too
        return x.numel() <= _FEW // 2 and precision(x) == x.dtype
    if x.numel() <= _FEW:
        return True
    if x.is_contiguous():
        return False
    ours = innermost(x) and plain(x) and precision(x) == x.dtype
    return not ours or (not statistics and x.numel() <= 4 * _FEW)


def torch_normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    groups: int,
    mean: Tensor | None = None,
    var: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Batch Norm of each of `groups` runs of consecutive samples in one call of torch's kernel.

    weight and bias, and mean and var, have shape (groups · C,); var becomes the unbiased variance, the mean is
    returned beside the output.
    """
    seen = side_by_side(x, groups)
    # The kernel sums in float32, on the CPU one value after another where channels are innermost: from the first value
    # on, so that a large mean costs no digits.
    many = x.is_cpu and x.numel() > _MANY * x.shape[1] and precision(x) == x.dtype
    centered = groups > 1 or (many and (x.dim() == 2 or not x.is_contiguous()))
    if centered:
        origin = seen.detach()[(slice(1), slice(None), *(slice(1) for _ in x.shape[2:]))]
        seen = seen - origin
    flat = seen.dim() == 2 and x.is_cpu
    if flat:
        # One image with channels innermost: there torch's kernel is vectorised over channels. By reshape, because where
        # a dimension of size 1 has another stride, as after unsqueeze, its backward pass (2.11) mixes memory orders up.
        seen = seen.reshape(1, len(seen), 1, -1).permute(0, 3, 1, 2)
    cudnn = x.is_cuda and torch.backends.cudnn.enabled
    # at momentum 1 torch's running averages are the batch's statistics
    ordered = seen if flat else one_order(seen)
    y = torch.batch_norm(ordered, weight, bias, mean, var, True, 1.0, eps, cudnn)
    y = y if ordered.dim() == seen.dim() else y.view(seen.shape)
    y = _one_behind_another(y.permute(0, 2, 3, 1).flatten(0, 2) if flat else y, groups)
    return y, mean + origin.flatten() if centered and mean is not None else mean


def one_order(x: Tensor) -> Tensor:
    """x as torch's Batch Norm on the CPU can be given it: with a dimension of size 1 it mixes memory orders up.

    There a gradient may pass for channels-last where x does not, or the reverse, and is read in the wrong order (2.11).
    """
    if not (x.is_cpu and x.dim() > 3 and 1 in x.shape):
        return x
    if innermost(x):  # with the strides that such a tensor has
        moved = x.movedim(1, -1)
        return moved.flatten().view(moved.shape).movedim(-1, 1)
    return x.flatten(2)


def evaluate(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Batch Norm by statistics that are constants."""
    ordered = one_order(x)
    y = F.batch_norm(ordered, mean, var, weight, bias, False, 0.0, eps)
    return y if ordered.dim() == x.dim() else y.view(x.shape)


def for_each(groups: int, values: Tensor | None) -> Tensor | None:
    """Values of shape (C,) for every virtual batch: (groups · C,), a copy. Not by repeat, which makes a dozen calls."""
    if values is None or groups == 1:
        return values
    # clone: of a single channel, flatten would make a view of one value, which the kernel writes to
    return values.expand(groups, -1).clone(memory_format=torch.contiguous_format).flatten()


def side_by_side(x: Tensor, groups: int) -> Tensor:
    """(N, C, *) as (N/groups, groups · C, *): virtual batches become channels. The memory order stays."""
    if groups == 1:
        return x
    if innermost(x):
        return x.movedim(1, -1).unflatten(0, (groups, -1)).movedim(0, -2).flatten(-2).movedim(-1, 1)
    return x.unflatten(0, (groups, -1)).transpose(0, 1).flatten(1, 2)


def _one_behind_another(x: Tensor, groups: int) -> Tensor:
    """Undo `side_by_side`."""
    if groups == 1:
        return x
    if innermost(x):
        return x.movedim(1, -1).unflatten(-1, (groups, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)
    return x.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1)


@torch.no_grad()
def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Batch mean and biased variance per channel, shape (C,), at least in float32."""
    dims = [d for d in range(x.dim()) if d != 1]
    x = x.to(precision(x))
    mean = x.mean(dims, keepdim=True)
    return mean.flatten(), (x - mean).square().mean(dims)


@torch.library.custom_op("normlib::copy", mutates_args=())
def _opaque_copy(buffer: Tensor) -> Tensor:
    return buffer.clone()


@_opaque_copy.register_fake
def _(buffer):
    return torch.empty_like(buffer)


@_opaque_copy.register_vmap
def _(info, in_dims, buffer):
    return _opaque_copy(buffer), in_dims[0]


def snapshot(*buffers: Tensor) -> tuple[Tensor, ...]:
    """Copies for a backward pass that comes when the buffers have moved on.

    torch.compile takes an ordinary copy for cheap, repeats it in the backward pass, and so reads the moved buffer
    (pytorch/pytorch#197039): gradients would silently be wrong. It does not repeat an operation it cannot look into.
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and torch._C._current_graph_task_id() != -1:  # a forward pass within a backward pass
        raise RuntimeError(
            "a layer that trains with a history cannot be computed again by torch.utils.checkpoint, since its history "
            "has moved on: leave it outside of checkpointed blocks"
        )
    copy = _opaque_copy if compiling else Tensor.clone
    return tuple(copy(buffer) for buffer in buffers)


def move(running: Tensor, new: Tensor, share: float) -> None:
    """running ← (1 − share) running + share new, in place; a value that is not finite moves nothing.

    The difference becomes 0 on the device: no branch, no synchronization.
    """
    difference = new - running
    # in place is quicker, but has no rule under torch.func.vmap, where it falls back to something ten times slower
    zeroed = difference.nan_to_num if is_batchedtensor(difference) else difference.nan_to_num_
    running.add_(zeroed(0.0, 0.0, 0.0), alpha=share)
