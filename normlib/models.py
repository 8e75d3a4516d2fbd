"""The networks the book trains, each taking any normalization as `norm_layer`.

`norm_layer` is torchvision's convention: a callable that gets the number of channels and returns a
module, for example `normlib.layers.BatchNorm` or `functools.partial(nn.GroupNorm, 8)`. None leaves the layer out.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

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
