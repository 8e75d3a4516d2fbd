"""Shapes, sizes, and where the normalization stands."""

from functools import partial

import pytest
import torch
from torch import nn

from normlib.layers import BatchNorm
from normlib.models import MLP, LeNet5


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def names(model):
    return [type(m).__name__ for m in model.modules() if not list(m.children())]


@pytest.mark.parametrize("shape", [(4, 64), (4, 1, 8, 8), (4, 4, 16)], ids=str)
def test_mlp_takes_any_shape_of_its_size(shape):
    assert MLP(64, num_classes=7)(torch.zeros(shape)).shape == (4, 7)


def test_mlp_layers_in_order():
    model = MLP(64, width=32, depth=2, norm_layer=BatchNorm, activation=nn.Tanh)
    assert names(model) == ["Flatten", *["Linear", "BatchNorm", "Tanh"] * 2, "Linear"]
    assert parameters(model) == 64 * 32 + 32 + 32 * 32 + 32 + 2 * 2 * 32 + 32 * 10 + 10
    assert names(MLP(64, depth=1)) == ["Flatten", "Linear", "ReLU", "Linear"]
    assert names(MLP(64, depth=0)) == ["Flatten", "Linear"]


def test_mlp_has_five_hidden_layers_of_64_by_default():
    assert parameters(MLP(64)) == 5 * (64 * 64 + 64) + 64 * 10 + 10


def test_lenet_has_the_published_size():
    model = LeNet5()
    assert parameters(model) == 61_706
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert model.features(torch.zeros(2, 1, 32, 32)).shape == (2, 120, 1, 1)


def test_lenet_normalizes_between_each_map_and_its_tanh():
    model = LeNet5(num_classes=7, norm_layer=BatchNorm)
    part = ["Conv2d", "BatchNorm", "Tanh", "AvgPool2d"]
    assert names(model) == [*part, *part, *part[:3], "Linear", "BatchNorm", "Tanh", "Linear"]
    assert [m.num_features for m in model.modules() if isinstance(m, BatchNorm)] == [6, 16, 120, 84]
    assert parameters(model) == 61_706 + 2 * (6 + 16 + 120 + 84) - 3 * 85
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("build", [LeNet5, partial(MLP, 32 * 32)], ids=["LeNet5", "MLP"])
def test_any_callable_of_the_number_of_channels_is_a_norm_layer(build):
    model = build(norm_layer=partial(nn.GroupNorm, 2))
    assert any(isinstance(m, nn.GroupNorm) for m in model.modules())
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
