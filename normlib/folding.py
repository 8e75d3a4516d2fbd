"""Many models as one: the seeds' channels side by side, so that one call of a layer serves them all.

Batch statistics are taken per channel and group statistics per group, so that S models of C channels are, to a
normalization, one model of S·C channels; activations keep their shape (N, S·C, *), a convolution takes the models as
its groups, and only a linear layer must know where one model ends and the next begins. `fold` builds that model. On
small networks, where time goes into the number of calls, ten seeds then cost less than twice one.
"""

import copy
from collections.abc import Sequence
from functools import partial
from types import CellType, FunctionType

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import layers

# Layers that act on each value alone, or on each channel alone.
_PLAIN = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.GELU, nn.ELU, nn.SiLU, nn.Identity, nn.Dropout)
_PLAIN += (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_CONVOLUTIONS = (nn.Conv2d, layers.WSConv2d)
_NORMS = (layers.BatchNorm, layers.BatchRenorm, layers.MomentumBatchNorm, layers.GroupNorm, layers.BatchChannelNorm)


class _Linears(nn.Module):
    """S linear layers: (N, S·in) → (N, S·out)."""

    def __init__(self, models: list[nn.Linear]):
        super().__init__()
        self.rule = None if type(models[0]) is nn.Linear else _bare(models[0])  # a child: told of mode and epoch
        self.weight = nn.Parameter(torch.stack([m.weight.detach().T for m in models]))  # (S, in, out)
        bias = None if models[0].bias is None else torch.stack([m.bias.detach()[None] for m in models])
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))  # (S, 1, out)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(x), len(self.weight), -1).transpose(0, 1)
        weight = self.weight if self.rule is None else self.rule.effective_weight(self.weight.mT).mT
        y = torch.bmm(x, weight) if self.bias is None else torch.baddbmm(self.bias, x, weight)
        return y.transpose(0, 1).flatten(1)

    def unfold(self, models: list[nn.Linear]) -> None:
        for i, model in enumerate(models):
            model.weight.copy_(self.weight[i].T)
            if self.bias is not None:
                model.bias.copy_(self.bias[i, 0])


class Folded(nn.Module):
    """S models of one architecture; x (N, S, …) → logits (N, S, classes). Made by `fold`."""

    def __init__(self, models: list[nn.Module], body: nn.Module):
        super().__init__()
        self.count, self.body = len(models), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1, 2) if x.dim() > 2 else x).unflatten(1, (self.count, -1))

    @torch.no_grad()
    def unfold(self, models: list[nn.Module]) -> None:
        """Write what was trained back into the models."""
        _unfold(self.body, models)


def alike(models: Sequence[nn.Module]) -> bool:
    """Whether the models differ in the values of parameters and buffers only, which are each one's own.

    Attributes must be equal by ==, functions and partials in code and in what they hold; what == cannot answer counts
    as a difference.
    """
    owners = [{id(t) for t in (*model.parameters(), *model.buffers())} for model in models]
    if len(set().union(*owners)) < sum(map(len, owners)):
        return False
    first, *others = map(_description, models)
    try:
        return all(other == first for other in others)
    except (RuntimeError, ValueError):  # tensors and arrays have an == of their own
        return False


_MODULE = vars(nn.Module()).keys() - {"training"}  # what every module has


def _description(model: nn.Module) -> list[tuple]:
    """Path, class, attributes and tensors' forms of each module; of a tensor with several names, the first too."""
    names: dict[int, str] = {}

    def form(name: str, tensor: Tensor | None):
        if tensor is None:
            return None
        learned = isinstance(tensor, nn.Parameter)
        return tensor.shape, tensor.dtype, learned, tensor.requires_grad, names.setdefault(id(tensor), name)

    return [
        (
            path,
            type(module),
            {name: _meaning(value) for name, value in vars(module).items() if name not in _MODULE},
            {name: form(f"{path}.{name}", t) for name, t in (module._parameters | module._buffers).items()},
        )
        for path, module in model.named_modules(remove_duplicate=False)
    ]


def _meaning(value, around: tuple[int, ...] = ()):
    """What can be compared of an attribute; a function made anew is another object, and so is all that it holds."""
    if id(value) in around:  # a function that holds itself
        return around.index(id(value))
    inside = partial(_meaning, around=(*around, id(value)))
    if isinstance(value, FunctionType):
        held = tuple(inside(cell.cell_contents) for cell in value.__closure__ or () if cell != CellType())  # not empty
        return value.__code__, inside(value.__defaults__), inside(value.__kwdefaults__), held
    if isinstance(value, partial):
        return inside(value.func), inside(value.args), inside(value.keywords)
    if type(value) in (tuple, list):
        return type(value)(map(inside, value))
    if type(value) is dict:
        return {key: inside(part) for key, part in value.items()}
    return value


def fold(models: list[nn.Module]) -> Folded | None:
    """The models as one, or None where they are not `alike` or one of their layers is not known to fold.

    Known are nn.Sequential (and subclasses that keep its `forward`), nn.Linear, nn.Conv2d, 2-d pooling, nn.Flatten of
    everything, elementwise activations, nn.Dropout and the layers of `normlib.layers`, no subclasses of the last. A
    class of one's own declares itself by `folds = True`, not inherited, if

    - it acts on each channel alone, the channels of its tensors standing first; or
    - it is an nn.Sequential, without tensors of its own, that does something to each value around its layers; or
    - it is an nn.Linear, with no tensors of its own beside weight and bias, that computes
      F.linear(x, self.effective_weight(self.weight), self.bias), where `effective_weight` treats the last two
      dimensions of a tensor (…, out, in) as a weight.

    All tensors must be registered. None may serve twice, no parameter be frozen, and no module may have
    parametrizations or hooks, which a model among others would lose; but a normalization may be watched: its hooks, the
    first model's, see all models' channels side by side.
    """
    if not alike(models) or not all(_is_plain(module) for model in models for module in model.modules()):
        return None
    tensors = [
        id(tensor)
        for model in models
        for named in (model.named_parameters, model.named_buffers)
        for _, tensor in named(remove_duplicate=False)
    ]
    if len(set(tensors)) < len(tensors):
        return None
    body = _fold(models)
    return None if body is None else Folded(models, body)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _is_plain(module: nn.Module) -> bool:
    """Whether a module does what its class says, with registered tensors only, and learns all its parameters."""
    watched = isinstance(module, (*_NORMS, layers.LayerNorm, layers.InstanceNorm))
    hooked = not watched and any(getattr(module, hooks) for hooks in _HOOKS)
    return (
        not hooked
        and not parametrize.is_parametrized(module)
        and not any(isinstance(value, Tensor) for value in vars(module).values())
        and all(p.requires_grad for p in module.parameters(recurse=False))
    )


def _bare(module: nn.Module) -> nn.Module:
    """A copy with the module's attributes, but without its tensors, children and hooks."""
    bare = copy.copy(module)
    vars(bare).update(vars(nn.Module()) | {"training": module.training})
    return bare


def _fold(models: list[nn.Module]) -> nn.Module | None:
    first = models[0]
    kind = type(first)
    declared = vars(kind).get("folds", False)
    own = {*first._parameters, *first._buffers}
    if kind.forward is nn.Sequential.forward or (declared and isinstance(first, nn.Sequential)):
        children = [_fold([m[i] for m in models]) for i in range(len(first))]
        if own or None in children:
            return None
        body = _bare(first)
        body._modules.update(zip(first._modules, children, strict=True))
        return body
    if kind is nn.Linear or (declared and isinstance(first, nn.Linear)):
        known = kind is nn.Linear or hasattr(first, "effective_weight")
        return _Linears(models) if known and own == {"weight", "bias"} and not first._modules else None
    if kind in _PLAIN or (kind is nn.Flatten and (first.start_dim, first.end_dim) == (1, -1)):
        return copy.deepcopy(first)
    if declared or kind in (*_NORMS, *_CONVOLUTIONS, layers.LayerNorm, layers.InstanceNorm):
        return _widened(models)
    return None


def _widened(models: list[nn.Module]) -> nn.Module | None:
    """One layer of S times the channels and groups, its tensors joined; None if a scalar is learned or differs."""
    # Named in the memo, hooks are kept: copied, a method would report to a copy of its object.
    hooks = [hook for module in models[0].modules() for each in _HOOKS for hook in getattr(module, each).values()]
    wide = copy.deepcopy(models[0], {id(hook): hook for hook in hooks})
    for path, module in wide.named_modules():
        each = [m.get_submodule(path) for m in models]
        for name in ("num_features", "num_groups", "in_channels", "out_channels", "groups"):
            if hasattr(module, name):
                setattr(module, name, getattr(module, name) * len(models))
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.dim():
                return None
            setattr(module, name, nn.Parameter(torch.cat([getattr(m, name).detach() for m in each])))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dim():
                setattr(module, name, torch.cat([getattr(m, name) for m in each]))
            elif any(getattr(m, name) != buffer for m in each):  # the count of batches is everybody's
                return None
    return wide


def _unfold(body: nn.Module, models: list[nn.Module]) -> None:
    if isinstance(body, nn.Sequential):
        for i, child in enumerate(body):
            _unfold(child, [m[i] for m in models])
    elif isinstance(body, _Linears):
        body.unfold(models)
    else:
        own = body.state_dict()
        for i, model in enumerate(models):
            for name, value in model.state_dict().items():
                joined = own[name]
                value.copy_(joined.unflatten(0, (len(models), -1))[i] if joined.dim() else joined)
