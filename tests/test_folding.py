"""Many models as one: every model computes and learns as it does alone."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from normlib import folding, layers, models
from normlib.convert import norm_factory, set_epoch, standardize_convolutions
from normlib.folding import Folded, alike, fold

NORMS = {
    "none": (None, {}),
    "bn": ("bn", {}),
    "bn, virtual": ("bn", {"virtual_batch_size": 4}),
    "brn": ("brn", {"r_max": 2.0, "d_max": 0.5}),
    "mbn": ("mbn", {"batch_size": 8}),
    "ln": ("ln", {}),
    "gn": ("gn", {"num_groups": 4}),
    "bcn": ("bcn", {"num_groups": 4}),
    "bcn, estimate": ("bcn", {"num_groups": 4, "estimate": True}),
}


class Shifted(nn.Module):
    """A layer of one's own that holds another, statistics and parameters included."""

    folds = True

    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.shift = nn.Parameter(torch.rand(norm.num_features))
        self.register_buffer("seen", torch.zeros(norm.num_features))

    def forward(self, x):
        if self.training:
            self.seen += x.detach().mean(0)
        return self.norm(x) + self.shift


class Centered(nn.Linear):
    folds = True

    def effective_weight(self, weight):
        return weight - weight.mean(-1, keepdim=True)

    def forward(self, x):
        return nn.functional.linear(x, self.effective_weight(self.weight), self.bias)


def own_layers(norm):
    inside = nn.Identity() if norm is None else Shifted(norm(8))
    return nn.Sequential(nn.Linear(6, 8), inside, nn.ReLU(), Centered(8, 3))


NETS = {
    "MLP": ((6,), lambda norm: models.MLP(6, width=16, depth=2, num_classes=3, norm_layer=norm)),
    "residual": ((6,), lambda norm: models.ResidualMLP(6, width=16, depth=2, num_classes=3, norm_layer=norm)),
    "own layers": ((6,), own_layers),
    "CNN": ((2, 8, 8), lambda norm: models.StridedCNN(8, 2, 3, norm, strides=(1, 2))),
    "CNN+WS": (
        (2, 8, 8),
        lambda norm: standardize_convolutions(models.ThreeBlockCNN(4, 2, 3, norm, dropout=(0, 0, 0))),
    ),
}


def build(name, seed, net="MLP"):
    torch.manual_seed(seed)
    norm_layer = norm_factory(NORMS[name][0], **NORMS[name][1]) if NORMS[name][0] else None
    model = NETS[net][1](norm_layer).double()
    for module in model.modules():
        if hasattr(module, "momentum_lambda"):
            module.momentum_lambda = 0.5
    return model


def test_every_layer_that_folds_is_tried():
    declared = {kind for kind in map(vars(layers).get, layers.__all__) if getattr(kind, "folds", False)}
    tried = {type(norm_factory(name, **options)(8)) for name, options in NORMS.values() if name}
    missing = {*declared, *folding._NORMS} - tried
    assert not missing, f"NORMS has no entry for {sorted(kind.__name__ for kind in missing)}"


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", NORMS)
def test_folded_is_each_alone(name, net):
    shape = NETS[net][0]
    alone = [build(name, seed, net) for seed in range(3)]
    together = [build(name, seed, net) for seed in range(3)]
    folded = fold(together)
    assert isinstance(folded, Folded)
    for step in range(2):  # the second step sees the statistics that the first left
        x = torch.randn(8, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        logits = folded(x)
        assert logits.shape == (8, 3, 3)
        # the logarithm: some methods do not hold the scale, and the step must stay small where logits are large
        gradients = torch.autograd.grad(logits.square().log1p().sum(), list(folded.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(folded.parameters(), gradients, strict=True):
                parameter -= 0.01 * gradient
        for s, model in enumerate(alone):
            expected = model(x[:, s])
            torch.testing.assert_close(logits[:, s], expected, rtol=1e-9, atol=1e-9)
            gradients = torch.autograd.grad(expected.square().log1p().sum(), list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= 0.01 * gradient
    folded.unfold(together)
    for a, b in zip(together, alone, strict=True):
        assert a.state_dict().keys() == b.state_dict().keys()
        for key, value in b.state_dict().items():
            torch.testing.assert_close(a.state_dict()[key], value, rtol=1e-8, atol=1e-8, msg=key)
    folded.eval()
    x = torch.randn(5, *shape, dtype=torch.float64)
    for s, model in enumerate(together):
        torch.testing.assert_close(folded(x[:, None].expand(-1, 3, *shape))[:, s], model.eval()(x))


def test_a_model_that_breaks_leaves_the_others_alone():
    together = [build("bn", seed) for seed in range(2)]
    with torch.no_grad():
        together[0][1].linear.weight.fill_(torch.inf)
    x = torch.randn(8, 2, 6, dtype=torch.float64)
    logits = fold(together)(x)
    assert logits[:, 0].isnan().all()
    torch.testing.assert_close(logits[:, 1], build("bn", 1)(x[:, 1]))


def test_layers_that_counted_differently_are_not_folded():
    nets = [nn.Sequential(nn.Linear(6, 4), layers.BatchNorm(4)) for _ in range(2)]
    assert fold(nets) is not None
    nets[1](torch.randn(4, 6))  # counts a batch
    assert fold(nets) is None


class SecondThoughts(Shifted):
    """What its parent declared does not hold for it."""


def test_the_declaration_is_not_inherited():
    nets = [nn.Sequential(nn.Linear(6, 4), SecondThoughts(layers.BatchNorm(4))) for _ in range(2)]
    assert fold(nets) is None


class Odd(layers.BatchNorm):
    """A subclass may do anything with its channels."""


class Gained(Centered):
    folds = True

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.rand(()))

    def effective_weight(self, weight):
        return self.gain * weight


class Masked(Centered):
    folds = True

    def __init__(self, *sizes, registered):
        super().__init__(*sizes)
        mask = torch.rand(self.weight.shape).round()
        self.register_buffer("mask", mask) if registered else setattr(self, "mask", mask)

    def effective_weight(self, weight):
        return self.mask * weight


class Nested(Centered):
    folds = True

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Linear(1, 1, bias=False)

    def effective_weight(self, weight):
        return self.gain.weight * weight


class Doubled(nn.Linear):
    """Declares itself and has no effective weight."""

    folds = True

    def forward(self, x):
        return 2 * super().forward(x)


class Scaled(nn.Sequential):
    """A sequence with a tensor of its own."""

    folds = True

    def __init__(self, *modules):
        super().__init__(*modules)
        self.scale = nn.Parameter(torch.rand(()))

    def forward(self, x):
        return self.scale * super().forward(x)


SLOPES = torch.rand(4)


class Ranked(nn.Module):
    """A layer with a tensor that nobody registered, the same one in every model."""

    folds = True

    def __init__(self):
        super().__init__()
        self.slopes = SLOPES

    def forward(self, x):
        return self.slopes * x


@pytest.mark.parametrize(
    "module",
    [
        partial(nn.Conv1d, 1, 1, 1),
        partial(Odd, 4),
        partial(nn.Softmax, 1),
        partial(nn.Flatten, 2),
        partial(models.LeNet5),
        partial(Gained, 4, 4),
        partial(Masked, 4, 4, registered=True),
        partial(Masked, 4, 4, registered=False),
        partial(Nested, 4, 4),
        partial(Doubled, 4, 4),
        partial(Scaled, nn.ReLU()),
        Ranked,
    ],
)
def test_what_is_not_known_is_not_folded(module):
    assert fold([nn.Sequential(nn.ReLU(), module()) for _ in range(2)]) is None


class Noisy(Centered):
    """An effective weight that depends on the mode and on the epoch."""

    folds, epoch = True, 0

    def set_epoch(self, epoch, epochs):
        self.epoch = epoch

    def effective_weight(self, weight):
        return weight * (1 + self.epoch) + self.training


def test_an_effective_weight_knows_mode_and_epoch():
    alone = [nn.Sequential(Noisy(4, 3)) for _ in range(2)]
    folded, x = fold(copy.deepcopy(alone)), torch.randn(5, 2, 4)
    for net in (folded, *alone):
        set_epoch(net.eval(), 3, 5)
    torch.testing.assert_close(folded(x), torch.stack([model(x[:, s]) for s, model in enumerate(alone)], 1))


class Times(nn.Sequential):
    """k times what its layers say."""

    folds = True

    def __init__(self, k):
        super().__init__(nn.ReLU())
        self.k = k

    def forward(self, x):
        return self.k * super().forward(x)


def ramp(top):
    return lambda epoch, epochs: (1 + top * epoch / epochs, 0.0)


def limits(epoch, epochs, top):
    return ramp(top)(epoch, epochs)


def bounded(schedule):
    return lambda epoch, epochs: schedule(min(epoch, epochs), epochs)


def recursive():
    def schedule(epoch, epochs):
        return ramp(2)(epoch, epochs) if epoch < epochs else schedule(epochs - 1, epochs)

    return schedule


def held(momentum_lambda):
    layer = layers.MomentumBatchNorm(4, 2)
    layer.momentum_lambda = momentum_lambda
    return layer


DIFFERENT = {
    "class": (nn.ReLU, nn.Tanh),
    "option": (partial(layers.BatchNorm, 4), partial(layers.BatchNorm, 4, eps=1.0)),
    "attribute": (partial(Times, 1), partial(Times, 5)),
    "property": (partial(held, 0.0), partial(held, 0.5)),
    "inside": (lambda: Shifted(layers.BatchNorm(4)), lambda: Shifted(layers.BatchNorm(4, momentum=0.5))),
    "length": (lambda: nn.Sequential(nn.ReLU()), lambda: nn.Sequential(nn.ReLU(), nn.ReLU())),
    "bias": (partial(nn.Linear, 4, 4), partial(nn.Linear, 4, 4, bias=False)),
    "type": (partial(nn.Linear, 4, 4), partial(nn.Linear, 4, 4, dtype=torch.float64)),
    "mode": (nn.Dropout, lambda: nn.Dropout().eval()),
    "function": tuple(partial(layers.BatchRenorm, 4, schedule=ramp(top)) for top in (1, 2)),
    "partial": tuple(partial(layers.BatchRenorm, 4, schedule=partial(limits, top=top)) for top in (1, 2)),
    "held": tuple(partial(layers.BatchRenorm, 4, schedule=bounded(partial(limits, top=top))) for top in (1, 2)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_models_that_differ_in_more_than_tensors_are_not_folded(what):
    one, other = (nn.Sequential(nn.Linear(4, 4), part()) for part in DIFFERENT[what])
    assert fold([one, copy.deepcopy(one)]) is not None
    assert fold([one, other]) is None


def test_models_that_cannot_be_compared_are_not_folded():
    assert fold([nn.Sequential(Times(np.ones(2))) for _ in range(2)]) is None


SAME = {
    "function": lambda: ramp(2),
    "partial": lambda: partial(limits, top=2),
    "held": lambda: bounded(partial(limits, top=2)),
    "listed": lambda: partial(limits, top=[ramp(1), {"of": ramp(2)}]),
    "recursive": recursive,
}


@pytest.mark.parametrize("schedule", SAME.values(), ids=SAME)
def test_functions_that_say_the_same_are_no_difference(schedule):
    assert schedule() != schedule()
    assert fold([nn.Sequential(layers.BatchRenorm(4, schedule=schedule())) for _ in range(2)]) is not None


@pytest.mark.parametrize("layer", [partial(nn.Linear, 4, 4), partial(layers.BatchNorm, 4, affine=False)])
def test_a_tensor_used_twice_is_not_folded(layer):
    twice = [layer() for _ in range(2)]
    assert fold([nn.Sequential(one, layer()) for one in twice]) is not None
    assert fold([nn.Sequential(one, one) for one in twice]) is None
    assert fold([nn.Sequential(twice[0], layer()) for _ in range(2)]) is None


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


class Scalar(nn.Module):
    folds = True

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.k * x


def test_a_learned_scalar_is_not_folded():
    assert fold([nn.Sequential(Scalar()) for _ in range(2)]) is None


def test_tensors_are_alike_in_what_they_are_for():
    def pair():
        return [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2)]

    one, other = pair()
    assert alike([one, other])
    frozen(other[0])
    assert not alike([one, other])
    one, other = pair()
    bias = other[0].bias.detach()
    del other[0].bias
    other[0].register_buffer("bias", bias)
    assert not alike([one, other])
    assert not alike([pair()[0], tied()])
    assert alike([tied(), tied()])
    one, other = pair()
    other[0] = one[0]
    assert not alike([one, other])


def frozen(linear):
    linear.bias.requires_grad_(False)


def hooked(linear):
    linear.register_forward_hook(lambda module, x, y: 2 * y)


def hooked_before(linear):
    linear.register_forward_pre_hook(lambda module, x: (2 * x[0],))


class Recorder:
    def __init__(self):
        self.seen = []

    def hook(self, layer, x, y=None):
        self.seen.append(x[0].shape)


def put(seen, layer, x, y=None):
    seen.append(x[0].shape)


@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
@pytest.mark.parametrize("kind", ["function", "method", "partial"])
def test_a_normalization_may_be_watched(register, kind):
    recorder = Recorder()
    hooks = {
        "function": lambda *call: recorder.hook(*call),
        "method": recorder.hook,
        "partial": partial(put, recorder.seen),
    }

    def norm(channels):
        layer = layers.BatchNorm(channels)
        getattr(layer, register)(hooks[kind])
        return layer

    fold([models.MLP(6, width=16, depth=1, norm_layer=norm) for _ in range(3)])(torch.randn(8, 3, 6))
    assert recorder.seen == [(8, 48)]


def test_what_is_hooked_to_the_folded_is_not_hooked_to_the_first():
    alone = [models.MLP(6, width=16, depth=1, norm_layer=layers.BatchNorm) for _ in range(2)]
    folded, seen = fold(alone), []
    for module in folded.modules():
        module.register_forward_hook(lambda module, x, y: seen.append(module))
    alone[0](torch.randn(8, 6))
    assert seen == []


@pytest.mark.parametrize("change", [frozen, hooked, hooked_before, nn.utils.parametrizations.weight_norm])
def test_what_folding_would_lose_is_not_folded(change):
    models = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)]
    assert fold(models) is not None
    change(models[1][0])
    assert fold(models) is None
