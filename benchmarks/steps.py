"""What chapter 08 sets beside accuracy: a step of its network with each method, and of each layer, against torch's."""

import torch
from torch import nn

from normlib import models
from normlib.convert import norm_factory, standardize_convolutions
from normlib.experiments import GRIDS

from .layers import step
from .pairs import Row, one_thread, ratio

GRID = GRIDS["all-methods"]
LAYER = (32, 64, 16, 16)


def norm_layer(method: str):
    """The method's layer for a number of channels, as the grid has it at its largest bounds; None for none."""
    settings = GRID.axes["method"][method]
    name, options = settings["norm"].removesuffix("+ws"), dict(settings.get("norm_options", {}))
    if name == "mbn":
        options["batch_size"] = 32
    factory = norm_factory(name, **options)

    def make(channels: int) -> nn.Module:
        layer = factory(channels)
        if name == "mbn":
            layer.momentum_lambda = 0.5  # at 0 it is Batch Norm
        elif name == "brn":
            layer.set_limits(3.0, 5.0)
        return layer

    return factory and make


def network(norm, standardized: bool = False) -> nn.Module:
    """The grid's network for digits."""
    used = GRID.profiles["short"]
    net = models.StridedCNN(used["width"], 1, norm_layer=norm, strides=tuple(used["strides"]))
    return standardize_convolutions(net) if standardized else net


def training(net: nn.Module, shape: tuple[int, ...]):
    """A function that runs the network forward and backward on fixed data."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    inputs = [x, *net.parameters()]
    return lambda: torch.autograd.grad(net(x).square().mean(), inputs)


def rows() -> list[Row]:
    with one_thread():
        return list(_rows())


def _rows():
    side = GRID.profiles["short"]["size"]
    images = (32, 1, side, side)
    of_torch, torch_layer = training(network(nn.BatchNorm2d), images), step(nn.BatchNorm2d(LAYER[1]), LAYER)
    for method in GRID.axes["method"]:
        norm, standardized = norm_layer(method), method.endswith("+ws")
        what = f"step of chapter 08's network with {method} / with nn.BatchNorm2d"
        yield ratio(what, training(network(norm, standardized), images), of_torch)
        alone = method.removesuffix("+ws")
        if norm is not None and not (standardized and alone in GRID.axes["method"]):  # its layer has a row
            yield ratio(
                f"layer {alone} / nn.BatchNorm2d, {'×'.join(map(str, LAYER))}", step(norm(64), LAYER), torch_layer
            )
