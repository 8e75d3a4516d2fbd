"""Normalization layers by name."""

import difflib
from collections.abc import Callable
from functools import partial

from torch import nn

from . import layers

_METHODS: dict[str, Callable[..., nn.Module] | None] = {"bn": layers.BatchNorm, "none": None}


def norm_factory(name: str, **options) -> Callable[[int], nn.Module] | None:
    """The layer `name` as a function of the number of channels, ready for a `norm_layer=` argument.

    Args:
        name: "bn" for `layers.BatchNorm`; "none" gives None, no normalization at all.
        options: passed to the layer, for example virtual_batch_size=4.

    Raises:
        ValueError: an unknown name (the message lists the known ones and the nearest), or options for "none".
    """
    if name not in _METHODS:
        near = difflib.get_close_matches(str(name), _METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name must be one of {', '.join(_METHODS)}, got {name!r}{hint}")
    layer = _METHODS[name]
    if layer is None:
        if options:
            raise ValueError(f'"none" takes no options, got {", ".join(options)}')
        return None
    return partial(layer, **options)
