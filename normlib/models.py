"""The networks the book trains, each taking any normalization as `norm_layer`.

`norm_layer` is torchvision's convention: a callable that gets the number of channels and returns a
module, for example `normlib.layers.BatchNorm` or `functools.partial(nn.GroupNorm, 8)`. None leaves the layer out.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

# torchvision is imported where it is needed: it loads torch's compiler, which takes seconds.

NormLayer = Callable[[int], nn.Module]


def _norm(norm_layer: NormLayer | None, channels: int) -> dict[str, nn.Module]:
    return {} if norm_layer is None else {"norm": norm_layer(channels)}


class MLP(nn.Sequential):
    """Fully connected network: `depth` hidden layers of (linear, norm, activation), then a linear classifier.

    Args:
        in_features: length of a flattened input; inputs of any shape (N, *) with that many values are taken.
        width: units of each hidden layer.
        depth: number of hidden layers.
        num_classes: outputs.
        norm_layer: module for a number of channels, placed before the activation; None for none.
        activation: class of the non-linearity.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 64,
        depth: int = 5,
        num_classes: int = 10,
        norm_layer: NormLayer | None = None,
        activation: type[nn.Module] = nn.ReLU,
    ):
        layers: list[nn.Module] = [nn.Flatten()]
        for i in range(depth):
            linear = nn.Linear(width if i else in_features, width)
            block = OrderedDict(linear=linear, **_norm(norm_layer, width), activation=activation())
            layers.append(nn.Sequential(block))
        super().__init__(*layers, nn.Linear(width if depth else in_features, num_classes))


class Residual(nn.Sequential):
    """x + f(x), where f is the layers in their order and keeps the shape."""

    folds = True

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ResidualMLP(nn.Sequential):
    """Fully connected residual network: linear, `depth` blocks x + linear(ReLU(norm(x))), norm, ReLU, classifier.

    The order within a block is He et al.'s (2016, arXiv 1603.05027). Arguments as for `MLP`.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 64,
        depth: int = 5,
        num_classes: int = 10,
        norm_layer: NormLayer | None = None,
    ):
        def ready() -> dict[str, nn.Module]:
            return _norm(norm_layer, width) | {"activation": nn.ReLU()}

        blocks = [Residual(OrderedDict(**ready(), linear=nn.Linear(width, width))) for _ in range(depth)]
        start = [nn.Flatten(), nn.Linear(in_features, width)]
        super().__init__(*start, *blocks, nn.Sequential(OrderedDict(ready())), nn.Linear(width, num_classes))


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998) as seed 003 has it, for inputs of shape (N, 1, 32, 32).

    Three 5×5 convolutions (6, 16, 120 maps) with tanh, the first two followed by 2×2 average pooling, then
    fully connected layers of 84 and `num_classes` units. With `norm_layer`, a normalization stands between
    each convolution, and the first fully connected layer, and its tanh.
    """

    def __init__(self, num_classes: int = 10, norm_layer: NormLayer | None = None):
        super().__init__()

        def block(module: nn.Module, channels: int, pool: bool = False) -> nn.Sequential:
            parts = OrderedDict(map=module, **_norm(norm_layer, channels), activation=nn.Tanh())
            return nn.Sequential(parts | {"pool": nn.AvgPool2d(2)} if pool else parts)

        self.features = nn.Sequential(
            block(nn.Conv2d(1, 6, 5), 6, pool=True),
            block(nn.Conv2d(6, 16, 5), 16, pool=True),
            block(nn.Conv2d(16, 120, 5), 120),
        )
        self.classifier = nn.Sequential(block(nn.Linear(120, 84), 84), nn.Linear(84, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class ThreeBlockCNN(nn.Sequential):
    """Three blocks of (conv, norm, ReLU, conv, norm, ReLU, 2×2 max pooling, dropout), then a linear classifier.

    The network of seed 002, which says neither widths nor rates; its dropout grows with depth. 3×3 convolutions
    without bias on images of side 8 or more; the classifier gets the mean over positions.

    Args:
        width: channels of the first block, doubled in each of the next.
        in_channels: channels of the images.
        num_classes: outputs.
        norm_layer: module for a number of channels; None for none.
        dropout: rate of each block.
    """

    def __init__(
        self,
        width: int = 32,
        in_channels: int = 3,
        num_classes: int = 10,
        norm_layer: NormLayer | None = None,
        dropout: tuple[float, float, float] = (0.1, 0.2, 0.3),
    ):
        blocks: list[nn.Module] = []
        for i, rate in enumerate(dropout):
            before, channels = (width << i - 1 if i else in_channels), width << i
            layers = [*_convolution(before, channels, norm_layer), *_convolution(channels, channels, norm_layer)]
            blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2), nn.Dropout(rate)))
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class StridedCNN(nn.Sequential):
    """Seven blocks of (3×3 conv, norm, ReLU) that stride down early, then a linear classifier on the positions' mean.

    Small where statistics are concerned: of 32×32 pixels the last layers hold 2×2 positions, so that a channel's batch
    statistic averages few values, as it does at the end of a ResNet, at a hundredth of the cost.

    Args:
        width: channels of every layer.
        in_channels: channels of the images.
        num_classes: outputs.
        norm_layer: module for a number of channels; None for none.
        strides: one per convolution.
    """

    def __init__(
        self,
        width: int = 32,
        in_channels: int = 3,
        num_classes: int = 10,
        norm_layer: NormLayer | None = None,
        strides: tuple[int, ...] = (2, 2, 1, 2, 1, 2, 1),
    ):
        blocks = [
            nn.Sequential(*_convolution(width if i else in_channels, width, norm_layer, stride))
            for i, stride in enumerate(strides)
        ]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def _convolution(before: int, channels: int, norm_layer: NormLayer | None, stride: int = 1) -> list[nn.Module]:
    """3×3 convolution, norm, ReLU; the bias only where no norm would take it away."""
    conv = nn.Conv2d(before, channels, 3, stride, padding=1, bias=norm_layer is None)
    return [conv, *_norm(norm_layer, channels).values(), nn.ReLU()]


class ThinResNet(nn.Sequential):
    """Like the CIFAR ResNets of He et al. (2016, arXiv 1512.03385), at any width: a 3×3 convolution, then three stages
    of n basic blocks each, of width, 2 · width and 4 · width channels, the last two of which begin with stride 2.

    Where the number of channels changes, the shortcut is a 1×1 convolution and a norm; theirs has no parameters.

    Args:
        depth: number of 3×3 convolutions and linear layers, 6n + 2: 8, 14, 20, … The two 1×1 convolutions of the
            shortcuts are not counted.
        width: channels of the first stage, 16 in the paper.
        in_channels: channels of the images.
        num_classes: outputs.
        norm_layer: module for a number of channels; None for none.
        stem_stride: of the first convolution; 1 in the paper, 2 for a quarter of the cost.

    Raises:
        ValueError: a depth that is not 6n + 2.
    """

    def __init__(
        self,
        depth: int = 8,
        width: int = 16,
        in_channels: int = 3,
        num_classes: int = 10,
        norm_layer: NormLayer | None = None,
        stem_stride: int = 1,
    ):
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 8, 14, 20, … (6n + 2), got {depth}")
        from torchvision.models import resnet

        layers = _convolution(in_channels, width, norm_layer, stem_stride)
        norm = norm_layer or (lambda channels: nn.Identity())
        before = width
        for stage in range(3):
            channels = width << stage
            for block in range((depth - 2) // 6):
                stride = 2 if stage and not block else 1
                shortcut = None
                if before != channels:
                    shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), norm(channels))
                layers.append(resnet.BasicBlock(before, channels, stride, shortcut, norm_layer=norm))
                before = channels
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


_RESNETS = {
    "resnet18": ("BasicBlock", [2, 2, 2, 2]),
    "resnet34": ("BasicBlock", [3, 4, 6, 3]),
    "resnet50": ("Bottleneck", [3, 4, 6, 3]),
}


def cifar_resnet(name: str, num_classes: int = 10, norm_layer: NormLayer | None = None) -> nn.Module:
    """torchvision's ResNet-18, 34 or 50 with the stem for 32×32 images: a 3×3 convolution of stride 1, no pooling.

    Args:
        name: "resnet18", "resnet34" or "resnet50" (He et al., 2016, arXiv 1512.03385).
        num_classes: outputs.
        norm_layer: module for a number of channels; None for none.

    Raises:
        ValueError: another name.
    """
    if name not in _RESNETS:
        raise ValueError(f"name must be one of {', '.join(_RESNETS)}, got {name!r}")
    from torchvision.models import resnet

    block, layers = _RESNETS[name]
    # None would mean Batch Norm to torchvision
    norm = norm_layer or (lambda channels: nn.Identity())
    model = resnet.ResNet(getattr(resnet, block), layers, num_classes=num_classes, norm_layer=norm)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


_VGGS = {"vgg11": "A", "vgg16": "D"}


def cifar_vgg(name: str, num_classes: int = 10, norm_layer: NormLayer | None = None) -> nn.Module:
    """The convolutions of torchvision's VGG-11 or 16 for 32×32 images, with a single linear classifier.

    Args:
        name: "vgg11" or "vgg16" (Simonyan and Zisserman, 2015, arXiv 1409.1556).
        num_classes: outputs.
        norm_layer: module for a number of channels; None for none.

    Raises:
        ValueError: another name.
    """
    if name not in _VGGS:
        raise ValueError(f"name must be one of {', '.join(_VGGS)}, got {name!r}")
    from torchvision.models import vgg

    features = vgg.make_layers(vgg.cfgs[_VGGS[name]], batch_norm=norm_layer is not None)
    for i, layer in enumerate(features):
        if isinstance(layer, nn.BatchNorm2d):
            features[i] = norm_layer(layer.num_features)
    model = vgg.VGG(features, num_classes=num_classes, init_weights=True)
    model.avgpool, model.classifier = nn.Identity(), nn.Linear(512, num_classes)
    return model
