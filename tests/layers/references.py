"""Every method by its paper's formulas and autograd alone, and the contract that holds a layer to them.

A `Written` layer is slow and plain: statistics with gradients where the paper lets them flow, `detach` where it
writes sg[·]. It names parameters and buffers as `normlib.layers` does, so that both can load the same state.
"""

import math

import torch
from compare import assert_same, measure, normal, randomize
from torch import Tensor, nn

from normlib import layers

C = 4
SHAPES = [(8, C), (4, C, 3), (4, C, 3, 2), (4, C, 2, 1, 3)]


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, shape (C,)."""
    dims = [d for d in range(x.dim()) if d != 1]
    mean = x.mean(dims)
    return mean, (x - per_channel(mean, x)).square().mean(dims)


def scaled(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (x - per_channel(mean, x)) / per_channel(std, x)


class Written(nn.Module):
    """What the methods on batch statistics share: γ, β, buffers, virtual batches whose new statistics are averaged."""

    starts: tuple[tuple[str, float], ...] = ()  # buffers, and the value they start at
    settings: tuple[tuple[str, float], ...] = ()  # options of the method, and their defaults

    def __init__(self, num_features, eps=1e-5, affine=True, virtual_batch_size=None, **settings):
        super().__init__()
        self.eps, self.virtual_batch_size = eps, virtual_batch_size
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        for name, start in self.starts:
            self.register_buffer(name, torch.full((num_features,), start))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        for name, value in (dict(self.settings) | settings).items():
            setattr(self, name, value)

    def affine(self, x: Tensor) -> Tensor:
        return x if self.weight is None else x * per_channel(self.weight, x) + per_channel(self.bias, x)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.affine(self.evaluate(x))
        parts = [self.step(part) for part in x.split(self.virtual_batch_size or len(x))]
        with torch.no_grad():
            for name, _ in self.starts:
                getattr(self, name).copy_(torch.stack([new[name] for _, new in parts]).mean(0))
            self.num_batches_tracked += 1
        return self.affine(torch.cat([normalized for normalized, _ in parts]))

    def step(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The normalized values of one (virtual) batch, and what the buffers would become after it alone."""
        raise NotImplementedError

    def evaluate(self, x: Tensor) -> Tensor:
        return scaled(x, self.running_mean, (self.running_var + self.eps).sqrt())


class WrittenBatchNorm(Written):
    starts = (
        ("running_mean", 0.0),
        ("running_var", 1.0),
    )
    settings = (("momentum", 0.1),)

    def step(self, x):
        mean, var = moments(x)
        n, rate = x.numel() // x.shape[1], self.momentum
        new = {
            "running_mean": (1 - rate) * self.running_mean + rate * mean,
            "running_var": (1 - rate) * self.running_var + rate * var * n / (n - 1),
        }
        return scaled(x, mean, (var + self.eps).sqrt()), new


class WrittenBatchRenorm(Written):
    starts = (
        ("running_mean", 0.0),
        ("running_std", 1.0),
    )
    settings = (
        ("momentum", 0.01),
        ("r_max", 1.0),
        ("d_max", 0.0),
    )

    def step(self, x):
        mean, var = moments(x)
        std = (var + self.eps).sqrt()
        r = (std / self.running_std).clamp(1 / self.r_max, self.r_max).detach()
        d = ((mean - self.running_mean) / self.running_std).clamp(-self.d_max, self.d_max).detach()
        new = {
            "running_mean": self.running_mean + self.momentum * (mean - self.running_mean),
            "running_std": self.running_std + self.momentum * (std - self.running_std),
        }
        return scaled(x, mean, std) * per_channel(r, x) + per_channel(d, x), new

    def evaluate(self, x):
        return scaled(x, self.running_mean, self.running_std)


class WrittenMomentumBatchNorm(Written):
    starts = (
        ("running_mean", 0.0),
        ("running_var", 1.0),
        ("momentum_mean", 0.0),
        ("momentum_var", 1.0),
    )
    settings = (
        ("momentum_lambda", 0.0),
        ("tau0", 0.9),
        ("ideal_batch_size", 32),
    )

    def __init__(self, num_features, batch_size, **options):
        super().__init__(num_features, batch_size=batch_size, **options)

    def step(self, x):
        mean, var = moments(x)
        lam, tau = self.momentum_lambda, self.tau0 ** (self.batch_size / self.ideal_batch_size)
        mixed_mean = lam * self.momentum_mean + (1 - lam) * mean
        mixed_var = lam * self.momentum_var + (1 - lam) * var
        new = {
            "momentum_mean": mixed_mean,
            "momentum_var": mixed_var,
            "running_mean": tau * self.running_mean + (1 - tau) * mean,
            "running_var": tau * self.running_var + (1 - tau) * var,
        }
        return scaled(x, mixed_mean, (mixed_var + self.eps).sqrt()), new


class WrittenEstimateNorm(Written):
    starts = (
        ("running_mean", 0.0),
        ("running_var", 1.0),
    )
    settings = (("momentum", 0.1),)

    def step(self, x):
        rate = self.momentum
        square = (x - per_channel(self.running_mean, x)).square()  # around the old mean
        mean = ((1 - rate) * self.running_mean + rate * moments(x)[0]).detach()
        var = ((1 - rate) * self.running_var + rate * moments(square)[0]).detach()
        return scaled(x, mean, (var + self.eps).sqrt()), {"running_mean": mean, "running_var": var}


def grouped(x: Tensor, num_groups: int, eps: float) -> Tensor:
    """x normalized over each sample's groups of channels and positions."""
    seen = x.reshape(len(x), num_groups, -1)
    mean = seen.mean(2, keepdim=True)
    var = (seen - mean).square().mean(2, keepdim=True)
    return ((seen - mean) / (var + eps).sqrt()).reshape(x.shape)


class WrittenGroupNorm(nn.Module):
    def __init__(self, num_features, num_groups=32, eps=1e-5, affine=True):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)

    def forward(self, x):
        y = grouped(x, self.num_groups, self.eps)
        return y if self.weight is None else y * per_channel(self.weight, x) + per_channel(self.bias, x)


class WrittenBatchChannelNorm(nn.Module):
    def __init__(self, num_features, num_groups=32, eps=1e-5, estimate=False, affine=True, **options):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.batch = (WrittenEstimateNorm if estimate else WrittenBatchNorm)(num_features, eps, affine, **options)
        self.register_parameter("weight", nn.Parameter(torch.ones(num_groups)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_groups)) if affine else None)

    def forward(self, x):
        y = grouped(self.batch(x), self.num_groups, self.eps)
        if self.weight is None:
            return y
        y = y.reshape(len(x), self.num_groups, -1) * self.weight.view(1, -1, 1) + self.bias.view(1, -1, 1)
        return y.reshape(x.shape)


# method: (layer, the same by formulas, options to try; `lam` is set on the layer after it is made)
METHODS = {
    "bn": (layers.BatchNorm, WrittenBatchNorm, [{}, {"virtual_batch_size": 2}]),
    "brn": (
        layers.BatchRenorm,
        WrittenBatchRenorm,
        [
            {},
            {"r_max": 1.5, "d_max": 0.5, "momentum": 0.3},
            {"r_max": 3.0, "d_max": 5.0, "virtual_batch_size": 2},
            {"r_max": math.inf, "d_max": math.inf, "affine": False, "eps": 0.1},
        ],
    ),
    "gn": (layers.GroupNorm, WrittenGroupNorm, [{"num_groups": 2}, {"num_groups": 1, "affine": False, "eps": 0.1}]),
    "ln": (layers.LayerNorm, lambda C, **options: WrittenGroupNorm(C, 1, **options), [{}]),
    "in": (layers.InstanceNorm, lambda C, **options: WrittenGroupNorm(C, C, **options), [{}]),
    "bcn": (
        layers.BatchChannelNorm,
        WrittenBatchChannelNorm,
        [
            {"num_groups": 2},
            {"num_groups": 2, "virtual_batch_size": 2, "momentum": 0.3, "eps": 0.1},
            {"num_groups": 1, "affine": False},
        ],
    ),
    "bcn-estimate": (
        lambda C, **options: layers.BatchChannelNorm(C, estimate=True, **options),
        lambda C, **options: WrittenBatchChannelNorm(C, estimate=True, **options),
        [
            {"num_groups": 2},
            {"num_groups": 2, "virtual_batch_size": 1, "momentum": 0.3},
            {"num_groups": 1, "virtual_batch_size": 2, "affine": False, "eps": 0.1},
        ],
    ),
    "mbn": (
        layers.MomentumBatchNorm,
        WrittenMomentumBatchNorm,
        [
            {"batch_size": 4},
            {"batch_size": 4, "lam": 0.875},
            {"batch_size": 2, "lam": 0.3, "virtual_batch_size": 2, "tau0": 0.85, "ideal_batch_size": 16},
            {"batch_size": 8, "lam": 0.5, "affine": False, "eps": 0.1},
        ],
    ),
}
CASES = [(method, options) for method, (_, _, cases) in METHODS.items() for options in cases]
NAMES = [f"{method} {' '.join(f'{k}={v}' for k, v in options.items())}".strip() for method, options in CASES]


def build(kind, options: dict, num_features: int = C) -> nn.Module:
    """A layer from its class and options, `lam` among them."""
    options = dict(options)
    lam = options.pop("lam", None)
    layer = kind(num_features, **options)
    if lam is not None:
        layer.momentum_lambda = lam
    return layer


def shapes_for(method: str) -> list[tuple[int, ...]]:
    return [shape for shape in SHAPES if method != "in" or len(shape) > 2]


def spread(x: Tensor) -> Tensor:
    """Channels of different mean and deviation, so that some are clipped and some are not."""
    steps = per_channel(torch.linspace(-1, 1, x.shape[1], dtype=x.dtype), x)
    return x * 3**steps + steps


def pair(method: str, options: dict, kind=None) -> tuple[nn.Module, nn.Module]:
    """A layer and its reference, freshly made, in float64."""
    ours, written, _ = METHODS[method]
    return build(kind or ours, options).double(), build(written, options).double()


def state(layer: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in layer.state_dict().items()}


def contract(method: str, options: dict, kind=None) -> None:
    """Hold a layer (the method's own, or `kind`) against the formulas: where it starts, two training steps and
    an evaluation with all gradients and buffers, in every rank, and a large mean in float32."""
    layer, written = pair(method, options, kind)
    assert_same(state(layer), state(written), 0)
    for shape in shapes_for(method):
        layer, written = pair(method, options, kind)
        written.load_state_dict(randomize(layer, seed=len(shape)).state_dict())
        for seed in range(2):
            x, dy = spread(normal(*shape, seed=seed)), normal(*shape, seed=seed + 50)
            assert_same(measure(layer, x, dy), measure(written, x, dy), 1e-10)
        layer.eval(), written.eval()
        assert_same(measure(layer, x, dy), measure(written, x, dy), 1e-10)
    layer, written = pair(method, options, kind)
    x, dy = (normal(4, C, 3, 2) + 1e4).float(), normal(4, C, 3, 2, seed=1).float()
    for name, values in layer.named_buffers():  # a history that knows the mean
        if name.endswith("_mean"):
            values.fill_(1e4)
    written.load_state_dict(layer.state_dict())
    # a mean rounded to one unit in its last place moves x̂ by that unit, 2⁻¹⁰
    assert_same(measure(layer.float(), x, dy), measure(written, x.double(), dy.double()), 4e-3)
