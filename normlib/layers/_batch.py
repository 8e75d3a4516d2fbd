"""What the layers on batch statistics have in common: parameters, buffers, running averages, the choice of kernel."""

import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor

from . import _checks
from ._normalize import precision

# Below this many values one call of torch's kernel beats our few vectorised passes; above, and only for
# channels-first CPU tensors, its statistics loop is the slower (`make bench` shows both sides).
_FEW = 1 << 18


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


def by_torch(x: Tensor, groups: int) -> bool:
    """Whether torch's own Batch Norm kernel is at least as fast as ours for this input."""
    return groups == 1 and not (x.is_cpu and x.numel() > _FEW and x.is_contiguous())


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
    copy = _opaque_copy if torch.compiler.is_compiling() else Tensor.clone
    return tuple(copy(buffer) for buffer in buffers)


def move(running: Tensor, new: Tensor, share: float) -> None:
    """running ← (1 − share) running + share new, in place; a value that is not finite moves nothing.

    The difference becomes 0 on the device: no branch, no synchronization.
    """
    difference = new - running
    # in place is quicker, but has no rule under torch.func.vmap, where it falls back to something ten times slower
    zeroed = difference.nan_to_num if is_batchedtensor(difference) else difference.nan_to_num_
    running.add_(zeroed(0.0, 0.0, 0.0), alpha=share)
