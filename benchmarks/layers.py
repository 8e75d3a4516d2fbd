"""A training step of each layer on one thread, in float32, against torch's own."""

import torch
from torch import nn

from normlib.layers import BatchNorm

from .pairs import Row, one_thread, ratio

SHAPES = {(8, 64, 32, 32): 1.0, (64, 64, 32, 32): 1.0, (8, 16, 8, 8): 1.2}  # with the largest ratio aimed at
SAVED_SHAPE = (8, 64, 32, 32)


def step(layer: nn.Module, shape: tuple[int, ...], memory_format: torch.memory_format = torch.contiguous_format):
    """A function that runs the layer forward and backward on fixed data."""
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(shape, generator=generator).contiguous(memory_format=memory_format) for _ in "xy")
    x.requires_grad_()
    inputs = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x), inputs, dy)


def saved(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Bytes kept for the backward pass, in sizes of the input."""
    x = torch.randn(shape, requires_grad=True)
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    return sum(storages.values()) / (x.numel() * x.element_size())


def rows() -> list[Row]:
    with one_thread():
        return list(_rows())


def _rows():
    for shape, goal in SHAPES.items():
        name = "×".join(map(str, shape))
        torch_step = step(nn.BatchNorm2d(shape[1]), shape)
        yield ratio(f"BatchNorm / nn.BatchNorm2d, {name}", step(BatchNorm(shape[1]), shape), torch_step, goal)
        group = step(nn.GroupNorm(8, shape[1]), shape)
        yield ratio(f"nn.GroupNorm / nn.BatchNorm2d, {name}", group, torch_step)
    for shape in list(SHAPES)[:2]:  # in the memory order in which CPUs train convolutions
        theirs, ours = (step(kind(shape[1]), shape, torch.channels_last) for kind in (nn.BatchNorm2d, BatchNorm))
        yield ratio(f"BatchNorm / nn.BatchNorm2d, channels-last, {'×'.join(map(str, shape))}", ours, theirs)
    name = "×".join(map(str, SAVED_SHAPE))
    # its own statistics and parameters come on top of the input: 5 values per channel at most
    goal = 1 + 5 * SAVED_SHAPE[1] / torch.Size(SAVED_SHAPE).numel()
    yield Row(f"BatchNorm saves for backward, {name}", saved(BatchNorm(SAVED_SHAPE[1]), SAVED_SHAPE), goal, "inputs")
    yield Row(f"nn.BatchNorm2d saves, {name}", saved(nn.BatchNorm2d(SAVED_SHAPE[1]), SAVED_SHAPE), unit="inputs")
