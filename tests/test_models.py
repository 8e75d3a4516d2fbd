"""Shapes, sizes, and where the normalization stands."""

from functools import partial

import pytest
import torch
from torch import nn

from normlib.layers import BatchNorm, GroupNorm
from normlib.models import MLP, LeNet5, StridedCNN, ThinResNet, ThreeBlockCNN, cifar_resnet, cifar_vgg


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


def convolutions(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def test_three_blocks():
    model = ThreeBlockCNN(4, in_channels=1, num_classes=7, norm_layer=BatchNorm)
    block = ["Conv2d", "BatchNorm", "ReLU"] * 2 + ["MaxPool2d", "Dropout"]
    assert names(model) == block * 3 + ["AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert [c.out_channels for c in convolutions(model)] == [4, 4, 8, 8, 16, 16]
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert rates == sorted(rates)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_strided_ends_on_two_by_two_positions():
    model = StridedCNN(8, norm_layer=partial(GroupNorm, num_groups=2))
    shapes = []
    convolutions(model)[-1].register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    assert model(torch.zeros(5, 3, 32, 32)).shape == (5, 10)
    assert shapes == [(5, 8, 2, 2)]


@pytest.mark.parametrize("model", [ThreeBlockCNN, StridedCNN])
def test_convolutions_have_a_bias_where_no_norm_takes_it_away(model):
    assert all(c.bias is not None for c in convolutions(model(4)))
    assert all(c.bias is None for c in convolutions(model(4, norm_layer=BatchNorm)))


# Parameters of He et al.'s blocks on a 3×3 stem, as many reimplementations have them.
@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 11_173_962), ("resnet34", 21_282_122), ("resnet50", 23_520_842)]
)
def test_cifar_resnets(name, count):
    model = cifar_resnet(name, norm_layer=BatchNorm)
    assert parameters(model) == count
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    shapes = []
    model.layer1.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape[2:]))
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert shapes == [(32, 32)]  # nothing is thrown away before the first block


@pytest.mark.parametrize(("name", "depth"), [("vgg11", 8), ("vgg16", 13)])
@pytest.mark.parametrize("norm_layer", [None, BatchNorm, GroupNorm])
def test_cifar_vggs(name, depth, norm_layer):
    model = cifar_vgg(name, 100, norm_layer)
    assert len(convolutions(model)) == depth
    norms = [m for m in model.modules() if norm_layer and isinstance(m, norm_layer)]
    assert len(norms) == (depth if norm_layer else 0)
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


# The paper's own counts (Table 6: 0.27 M for ResNet-20), with 1×1 convolutions where it pads with zeros.
@pytest.mark.parametrize(("depth", "count"), [(8, 78_042), (20, 272_474)])
def test_thin_resnets(depth, count):
    model = ThinResNet(depth, norm_layer=BatchNorm)
    assert parameters(model) == count
    assert len([c for c in convolutions(model) if c.kernel_size == (3, 3)]) == depth - 1
    assert len([c for c in convolutions(model) if c.kernel_size == (1, 1)]) == 2
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert not [m for m in ThinResNet(depth).modules() if "Norm" in type(m).__name__]


def test_a_thin_resnet_has_a_depth_of_its_kind():
    with pytest.raises(ValueError, match=r"depth must be 8, 14, 20, … \(6n \+ 2\), got 9"):
        ThinResNet(9)


def test_no_norm_leaves_no_norm():
    assert not [m for m in cifar_resnet("resnet18").modules() if "Norm" in type(m).__name__]


@pytest.mark.parametrize(("build", "known"), [(cifar_resnet, "resnet18, resnet34"), (cifar_vgg, "vgg11, vgg16")])
def test_unknown_networks_are_refused(build, known):
    with pytest.raises(ValueError, match=rf"name must be one of {known}.*got 'alexnet'"):
        build("alexnet")
