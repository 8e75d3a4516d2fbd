"""Normalization by name: a factory for `norm_layer=`, and the conversion of a whole model in one call.

resnet18(norm_layer=norm_factory("gn", num_groups=16))
convert_norm(resnet18(), "gn+ws")  # to train from scratch
"""

import difflib
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from . import layers
from .layers import _checks

_METHODS: dict[str, type[nn.Module] | None] = {
    "bn": layers.BatchNorm,
    "brn": layers.BatchRenorm,
    "ln": layers.LayerNorm,
    "in": layers.InstanceNorm,
    "gn": layers.GroupNorm,
    "bcn": layers.BatchChannelNorm,
    "mbn": layers.MomentumBatchNorm,
    "none": None,
}
_GROUPED = ("gn", "bcn")


def _method(name: str) -> type[nn.Module] | None:
    if name not in _METHODS:
        raise ValueError(f"name must be one of {', '.join(_METHODS)}, got {name!r}{_nearest(name, _METHODS)}")
    return _METHODS[name]


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def fitting_groups(num_features: int, num_groups: int = 32) -> int:
    """The number of groups used for a width that num_groups does not suit.

    It is the largest divisor of num_features that is at most num_groups and leaves two channels or more in each group
    (a group per channel would be Instance Norm), or 1 where there is none.
    """
    return max((d for d in _checks.divisors(num_features) if d <= num_groups and 2 * d <= num_features), default=1)


def norm_factory(name: str, **options) -> Callable[[int], nn.Module] | None:
    """The layer `name` as a function of the number of channels, ready for a `norm_layer=` argument.

    Args:
        name: "none", which gives None, or a class of `normlib.layers`:
            "bn", "brn", "ln", "in", "gn", "bcn" or "mbn".
        options: passed to the layer, for example virtual_batch_size=4. "mbn" needs batch_size. The
            num_groups of "gn" and "bcn", 32 by default, is fitted to each width by `fitting_groups`.

    Warning:
        None stands for no layer in the networks of `normlib.models`; torchvision's read it as "the default", which is
        Batch Norm. To leave the layer out there, pass `lambda channels: nn.Identity()`.

    Raises:
        ValueError: an unknown name (the message lists the known ones and the nearest), or options for "none".
        TypeError: options that the layer does not take, or a missing one.
    """
    layer = _method(name)
    if layer is None:
        if options:
            raise ValueError(f'"none" takes no options, got {", ".join(options)}')
        return None
    if name in _GROUPED:
        wanted = _checks.positive_integer("num_groups", options.pop("num_groups", 32))
        layer(wanted * 2, wanted, **options)  # refuse bad options here, not at the first use

        def grouped(num_features: int, **more) -> nn.Module:
            return layer(num_features, fitting_groups(num_features, wanted), **(options | more))

        return grouped
    layer(2, **options)
    return partial(layer, **options)


def convert_norm(model: nn.Module, name: str, **options) -> nn.Module:
    """Replace every Batch Norm of a model, in place, by the layer `name`; return the model.

    Batch Norms are torch's (1d, 2d, 3d, sync) and `layers.BatchNorm`, but for the first half of a
    `layers.BatchChannelNorm`. The new layer keeps weight and bias (the same parameters, so that an optimizer made
    before goes on), ε unless given, device, dtype, training mode and hooks; a "bn" also its momentum and
    track_running_stats unless given; running statistics where they mean the same: mean and variance for "bn", "mbn" and
    "bcn", mean and √(variance + ε) for "brn".

    Args:
        model: any module; returned itself, or its replacement if it is a Batch Norm.
        name: as for `norm_factory`, without "none"; with "+ws" appended ("gn+ws") convolutions standardize their
            weights too (`layers.WSConv2d`): all but those whose output seems to be used as it is, since they have a
            bias and the next layer registered is no normalization. Such are the gates of squeeze-and-excitation and
            the last layer of a segmentation network: standardized, they would saturate, or could not set their scale.
        options: as for `norm_factory`, and `ws_eps`.

    Raises:
        ValueError: an unknown name; the option affine, which is each Batch Norm's own; no Batch Norm in the model; one
            of a subclass with a forward of its own (timm's adds an activation), or whose weight or bias alone is
            missing or parametrized; with "+ws" a convolution that is not a plain nn.Conv2d, or has one weight per
            filter; each named by its path. The model is then unchanged.
    """
    base, plus, ws = str(name).partition("+")
    if (plus and ws != "ws") or base not in _METHODS or base == "none":
        known = [m + end for m in _METHODS if m != "none" for end in ("", "+ws")]
        raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}{_nearest(name, known)}")
    if "affine" in options:
        raise ValueError(
            "affine must be left out: each layer has a weight and a bias if the Batch Norm it replaces has, "
            f"got affine={options['affine']!r}"
        )
    ws_eps = _checks.positive_float("ws_eps", options.pop("ws_eps", 1e-5)) if plus else None
    factory = norm_factory(base, **options)
    halves = {b for m in model.modules() if isinstance(m, layers.BatchChannelNorm) for b in m.modules()}
    old = {path: m for path, m in model.named_modules() if isinstance(m, _BATCH_NORMS) and m not in halves}
    if not old:
        raise ValueError(f"model must contain a Batch Norm, got {type(model).__name__} without one")
    for path, m in old.items():
        if type(m).forward not in _FORWARDS or "forward" in vars(m):
            raise ValueError(f"{path or 'model'}: {type(m).__name__} has a forward of its own, which would be lost")
        if not {"weight", "bias"} <= m._parameters.keys() or (m.weight is None) != (m.bias is None):
            raise ValueError(f"{path or 'model'}: weight and bias must be plain parameters, or both None")
    convolutions = _plain(_normalized_convolutions(model)) if plus else []  # refused before anything changes
    replacement = {id(m): _converted(m, factory, base, options) for m in old.values()}
    _standardize(convolutions, ws_eps)
    if isinstance(model, _BATCH_NORMS):
        return replacement[id(model)]
    for module in model.modules():
        for child_name, child in module._modules.items():  # named_children leaves out a child's second name
            if id(child) in replacement:
                setattr(module, child_name, replacement[id(child)])
    return model


def standardize_convolutions(model: nn.Module, ws_eps: float = 1e-5) -> nn.Module:
    """Turn every nn.Conv2d of a model, in place, into a `layers.WSConv2d` with the same weights; return the model.

    Raises:
        ValueError: ws_eps not above 0; a convolution that is not a plain nn.Conv2d, or has one weight per filter, named
            by its path. The model is then unchanged.
    """
    _checks.positive_float("ws_eps", ws_eps)
    _standardize(_plain(model.named_modules()), ws_eps)
    return model


_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, layers.BatchNorm)
_FORWARDS = (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward, layers.BatchNorm.forward)
_NORMS = (
    *_BATCH_NORMS,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    *(kind for kind in _METHODS.values() if kind),
)


def _normalized_convolutions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All convolutions, by path, but for those with a bias behind which no normalization is registered."""
    found, normalized = [], False
    for path, module in reversed([*model.named_modules()]):
        if isinstance(module, nn.modules.conv._ConvNd) and (normalized or module.bias is None):
            found.append((path, module))
        if isinstance(module, _NORMS):
            normalized = True
        elif any(True for _ in module.parameters(recurse=False)):
            normalized = False
    return found[::-1]


def _plain(modules: Iterable[tuple[str, nn.Module]]) -> list[nn.Conv2d]:
    """The convolutions to standardize; refuse those that cannot be."""
    found = []
    for path, module in modules:
        if isinstance(module, nn.modules.conv._ConvNd) and not isinstance(module, layers.WSConv2d):
            if type(module) is not nn.Conv2d:
                raise ValueError(f"{path}: only nn.Conv2d can be standardized, got {type(module).__name__}")
            if module.weight[0].numel() < 2:
                raise ValueError(f"{path}: a filter of one weight cannot be standardized")
            found.append(module)
    return found


def _standardize(convolutions: list[nn.Conv2d], ws_eps: float) -> None:
    for convolution in convolutions:
        convolution.__class__ = layers.WSConv2d
        convolution.ws_eps = ws_eps


def _converted(old: nn.Module, factory: Callable[..., nn.Module], base: str, given: dict) -> nn.Module:
    kept = {"eps": old.eps}
    if base == "bn":
        kept |= {"momentum": old.momentum, "track_running_stats": old.track_running_stats}
    kept = {name: value for name, value in kept.items() if name not in given}
    new = factory(old.num_features, affine=old.weight is not None, **kept)
    reference = old.weight if old.weight is not None else old.running_mean
    if reference is not None:
        new.to(reference)
    inner = new.batch if isinstance(new, layers.BatchChannelNorm) else new
    if old.weight is not None:
        inner.weight, inner.bias = old.weight, old.bias
    if old.running_mean is not None:
        with torch.no_grad():
            _keep_statistics(old, inner)
    for key, value in old.__dict__.items():
        if "_hooks" in key or key == "_is_full_backward_hook":
            new.__dict__[key] = value  # the dictionary itself: its hooks' handles can still remove them
    return new.train(old.training)


def _keep_statistics(old: nn.Module, new: nn.Module) -> None:
    values = {
        "running_mean": old.running_mean,
        "running_var": old.running_var,
        "running_std": (old.running_var + old.eps).sqrt(),
        "momentum_mean": old.running_mean,
        "momentum_var": old.running_var,
        "num_batches_tracked": old.num_batches_tracked,
    }
    for name, buffer in new.named_buffers(recurse=False):
        buffer.copy_(values[name])


def set_epoch(model: nn.Module, epoch: int, total_epochs: int) -> None:
    """Tell every scheduled layer of a model (those with a method `set_epoch`) the epoch, counted from 1."""
    for module in model.modules():
        if hasattr(module, "set_epoch"):
            module.set_epoch(epoch, total_epochs)
