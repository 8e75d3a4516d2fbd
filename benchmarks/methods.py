"""A training step of every method on one thread, in float32, against torch's own layer for the same work."""

import copy
from itertools import accumulate

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torchvision.models import resnet18

from normlib.convert import convert_norm
from normlib.layers import (
    BatchChannelNorm,
    BatchRenorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MomentumBatchNorm,
    WSConv2d,
)

from .layers import step
from .pairs import Row, one_thread, ratio

SHAPES = [(8, 64, 32, 32), (64, 64, 32, 32), (8, 16, 8, 8)]
IMAGES = (4, 3, 64, 64)  # of the memory rows


def _momentum(channels: int, lam: float = 0.5) -> MomentumBatchNorm:
    layer = MomentumBatchNorm(channels, 8)
    layer.momentum_lambda = lam
    return layer


BATCH = {
    "BatchRenorm": (lambda C: BatchRenorm(C, r_max=3.0, d_max=5.0), 1.3),
    "MomentumBatchNorm λ=0.5": (_momentum, 1.3),
    "BatchChannelNorm": (lambda C: BatchChannelNorm(C, 8), 1.6),
    "BatchChannelNorm estimate": (lambda C: BatchChannelNorm(C, 8, estimate=True), 1.6),
}
SAMPLE = {
    "GroupNorm(8)": (lambda C: GroupNorm(C, 8), lambda C: 8),
    "LayerNorm": (LayerNorm, lambda C: 1),
    "InstanceNorm": (InstanceNorm, lambda C: C),
}
CONVERTED = {
    "brn": {"r_max": 3.0, "d_max": 5.0},
    "mbn": {"batch_size": 4},
    "gn": {},
    "bcn": {},
    "bn": {"virtual_batch_size": 2},
}


def peak(model: nn.Module) -> int:
    """Most bytes that a training step holds at once beyond what it starts with, by the allocator's own record."""
    x = torch.randn(IMAGES, generator=torch.Generator().manual_seed(0))

    def train():
        model(x).square().mean().backward()

    train()  # gradients exist from here on
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        train()
    changes = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(changes, key=lambda e: e.start_ns())))


def evaluation(layer: nn.Module, shape: tuple[int, ...]):
    """A function that evaluates the layer on fixed data, without gradients."""
    layer.eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def run():
        with torch.no_grad():
            layer(x)

    return run


def rows() -> list[Row]:
    with one_thread():
        return list(_rows())


def _rows():
    for shape in SHAPES:
        name, C = "×".join(map(str, shape)), shape[1]
        theirs = step(nn.BatchNorm2d(C), shape)
        for kind, (layer, goal) in BATCH.items():
            yield ratio(f"{kind} / nn.BatchNorm2d, {name}", step(layer(C), shape), theirs, goal)
        for kind, (layer, groups) in SAMPLE.items():
            theirs = step(nn.GroupNorm(groups(C), C), shape)
            yield ratio(f"{kind} / nn.GroupNorm, {name}", step(layer(C), shape), theirs, 1.05)
        if shape != SHAPES[-1]:  # in the memory order in which CPUs train convolutions
            last = torch.channels_last
            for kind, (layer, goal) in BATCH.items():
                ours, other = step(layer(C), shape, last), step(nn.BatchNorm2d(C), shape, last)
                yield ratio(f"{kind} / nn.BatchNorm2d, channels-last, {name}", ours, other, goal)
            for kind, (layer, groups) in SAMPLE.items():
                ours, other = step(layer(C), shape, last), step(nn.GroupNorm(groups(C), C), shape, last)
                yield ratio(f"{kind} / nn.GroupNorm, channels-last, {name}", ours, other, 1.05)
        theirs = evaluation(nn.BatchNorm2d(C), shape)
        for kind in ("BatchRenorm", "MomentumBatchNorm λ=0.5"):
            ours = evaluation(BATCH[kind][0](C), shape)
            yield ratio(f"{kind} / nn.BatchNorm2d, evaluation, {name}", ours, theirs, 1.05)
    shape = SHAPES[0]
    convolutions = [kind(64, 64, 3, padding=1) for kind in (WSConv2d, nn.Conv2d)]
    ours, theirs = (step(layer, shape) for layer in convolutions)
    yield ratio(f"WSConv2d / nn.Conv2d, 3×3 64→64, {'×'.join(map(str, shape))}", ours, theirs, 1.1)
    plain = resnet18().train()
    original = peak(copy.deepcopy(plain))
    for method, options in CONVERTED.items():
        converted = convert_norm(copy.deepcopy(plain), method, **options)
        name = " ".join([method, *(f"{k}={v}" for k, v in options.items())])
        size = "×".join(map(str, IMAGES))
        yield Row(f"peak memory of a step, ResNet-18 as {name} / original, {size}", peak(converted) / original, 1.05)
