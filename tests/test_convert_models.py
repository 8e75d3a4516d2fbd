"""`convert_norm` on whole models: torchvision's networks, shared modules, hooks, refusals."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.ops import SqueezeExcitation

from normlib import layers
from normlib.convert import (
    _METHODS,
    convert_norm,
    fitting_groups,
    norm_factory,
    set_epoch,
    standardize_convolutions,
)

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = {
    "bn": (layers.BatchNorm, {}),
    "brn": (layers.BatchRenorm, {"r_max": 3.0, "d_max": 5.0}),
    "ln": (layers.LayerNorm, {}),
    "in": (layers.InstanceNorm, {}),
    "gn": (layers.GroupNorm, {"num_groups": 16}),
    "bcn": (layers.BatchChannelNorm, {"estimate": True}),
    "mbn": (layers.MomentumBatchNorm, {"batch_size": 2}),
}
MODELS = {
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "vgg11_bn": lambda: models.vgg.make_layers(models.vgg.cfgs["A"], batch_norm=True),  # less its 120 M classifier
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "densenet121": models.densenet121,
    "efficientnet_b0": models.efficientnet_b0,
}
built = {}


def model(name):
    """A network with running statistics as after some training; each test gets its own copy."""
    if name not in built:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = MODELS[name]()
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.running_mean, std=0.1)
                    nn.init.uniform_(module.running_var, 0.5, 1.5)
                    nn.init.uniform_(module.weight, 0.5, 1.5)
        built[name] = network.eval()
    return copy.deepcopy(built[name])


def images(n=2, size=64):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def batch_norms(network):
    return {path: m for path, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def test_every_name_is_tried():
    assert {*METHODS, "none"} == set(_METHODS)


@pytest.mark.parametrize("name", MODELS)
def test_every_method_replaces_everything_and_keeps_the_parameters(name):
    for method, (kind, options) in METHODS.items():
        network = model(name)
        old, parameters = batch_norms(network), dict(network.named_parameters())
        assert convert_norm(network, method, **options) is network
        assert not batch_norms(network)
        for path, norm in old.items():
            new = network.get_submodule(path)
            assert type(new) is kind
            assert new.eps == norm.eps
            assert new.num_features == norm.num_features
            assert not new.training
            inner = new.batch if method == "bcn" else new
            assert inner.weight is norm.weight
            assert inner.bias is norm.bias
            if hasattr(inner, "running_mean"):
                assert torch.equal(inner.running_mean, norm.running_mean)
        kept = {id(p) for p in network.parameters()}
        assert kept >= {id(p) for p in parameters.values()}


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_does_not_change(name):
    reference, x = model(name).double(), images(1).double()
    with torch.no_grad():
        expected = reference(x)
        for method in ("bn", "brn", "mbn"):
            network = convert_norm(copy.deepcopy(reference), method, **METHODS[method][1])
            torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("resnet18", "in"), ("resnet18", "brn"), ("resnet50", "bcn+ws"), ("vgg11_bn", "ln+ws"), ("vgg11_bn", "mbn"),
        ("mobilenet_v3_small", "gn+ws"), ("densenet121", "bcn+ws"), ("efficientnet_b0", "gn+ws"),
    ],
)  # fmt: skip
def test_a_training_step(name, method):
    base = method.split("+")[0]
    network = convert_norm(model(name).train(), method, **METHODS[base][1])
    set_epoch(network, 2, 3)
    network(images()).square().mean().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    standardized = {m for m in network.modules() if isinstance(m, layers.WSConv2d)}
    # torchvision's gates of squeeze-and-excitation are its convolutions called fc1 and fc2
    convolutions = {
        m for path, m in network.named_modules() if isinstance(m, nn.Conv2d) and path[-3:] not in ("fc1", "fc2")
    }
    assert standardized == (convolutions if "ws" in method else set())
    if base == "mbn":
        lambdas = {m.momentum_lambda for m in network.modules() if isinstance(m, layers.MomentumBatchNorm)}
        assert lambdas == {(2 / 32) ** 0.5 - 2 / 32}


def test_training_as_batch_norm_does_not_change_either():
    """Momentum and ε are kept: MobileNet's are not the defaults."""
    reference = model("mobilenet_v3_small").double().train()
    for module in reference.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    network, x = convert_norm(copy.deepcopy(reference), "bn"), images().double()
    torch.testing.assert_close(network(x), reference(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.state_dict(), reference.state_dict(), rtol=1e-9, atol=1e-9)
    assert {m.momentum for m in network.modules() if isinstance(m, layers.BatchNorm)} == {0.01}
    given = convert_norm(nn.Sequential(nn.BatchNorm2d(4, momentum=0.3)), "bn", momentum=0.2, eps=0.1)
    assert (given[0].momentum, given[0].eps) == (0.2, 0.1)


@pytest.mark.parametrize("method", ["gn", "bcn", "in", "mbn"])
def test_the_factory_in_torchvision(method):
    kind, options = METHODS[method]
    network = models.resnet18(norm_layer=norm_factory(method, **options))
    assert sum(type(m) is kind for m in network.modules()) == 20
    assert network(images()).shape == (2, 1000)


@pytest.mark.parametrize(
    ("features", "wanted", "groups"),
    [(64, 32, 32), (32, 32, 16), (24, 32, 12), (16, 32, 8), (88, 32, 22), (40, 16, 10), (96, 16, 16), (3, 32, 1),
     (1, 32, 1), (7, 4, 1), (960, 32, 32), (1280, 7, 5)],
)  # fmt: skip
def test_widths_that_the_groups_do_not_divide(features, wanted, groups):
    """The largest divisor up to the wanted number that leaves two channels in a group."""
    assert fitting_groups(features, wanted) == groups
    assert norm_factory("gn", num_groups=wanted)(features).num_groups == groups


def test_dtype_device_modes_and_affine_are_kept():
    network = nn.Sequential(nn.BatchNorm1d(4).double(), nn.BatchNorm2d(4, affine=False).eval(), nn.BatchNorm3d(4))
    network[2].weight.requires_grad_(False)
    for method, (_, options) in METHODS.items():
        new = convert_norm(copy.deepcopy(network), method, **options)
        assert {t.dtype for t in new[0].state_dict().values()} <= {torch.float64, torch.int64}
        assert [m.training for m in new] == [True, False, True]
        affine = [(m.batch if method == "bcn" else m).weight is not None for m in new]
        assert affine == [True, False, True]
        assert not (new[2].batch if method == "bcn" else new[2]).weight.requires_grad
        with torch.device("meta"):
            absent = convert_norm(nn.Sequential(nn.BatchNorm2d(4)), method, **options)
        assert {t.device.type for t in absent.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("method", METHODS)
def test_without_running_statistics(method):
    old = nn.BatchNorm2d(4, track_running_stats=False)
    new = convert_norm(nn.Sequential(old), method, **METHODS[method][1])[0]
    x = images()[:, :1].expand(2, 4, 64, 64)
    assert new(x).isfinite().all()
    if method == "bn":
        torch.testing.assert_close(new.eval()(x), old.eval()(x))
        assert new.running_mean is None


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = self.other = nn.BatchNorm2d(4)
        self.deep = nn.Sequential(self.one, nn.ReLU(), self.one)

    def forward(self, x):
        return self.deep(self.other(self.one(x)))


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_module_is_converted_once(method):
    network = convert_norm(Shared(), method, **METHODS[method][1])
    assert network.one is network.other is network.deep[0] is network.deep[2]
    assert type(network.one) is METHODS[method][0]
    assert not batch_norms(network)
    network(images()[:, :1].expand(2, 4, 64, 64))


@pytest.mark.parametrize("method", METHODS)
def test_hooks_are_kept_and_can_be_removed(method):
    network, calls = nn.Sequential(nn.BatchNorm2d(4)), []
    handles = [
        network[0].register_forward_pre_hook(lambda module, args: calls.append("pre")),
        network[0].register_forward_hook(lambda module, args, kwargs, y: calls.append("forward"), with_kwargs=True),
        network[0].register_full_backward_hook(lambda module, *gradients: calls.append("backward")),
        network[0].register_state_dict_post_hook(lambda module, *rest: calls.append("state")),
    ]
    convert_norm(network, method, **METHODS[method][1])
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    network(x).sum().backward()
    network.state_dict()
    assert calls == ["pre", "forward", "backward", "state"]
    for handle in handles:
        handle.remove()
    network(x).sum().backward()
    network.state_dict()
    assert len(calls) == 4


def test_a_bare_batch_norm_and_a_second_conversion():
    norm = nn.BatchNorm2d(4)
    new = convert_norm(norm, "brn")
    assert type(new) is layers.BatchRenorm
    assert new.weight is norm.weight
    network = convert_norm(nn.Sequential(nn.Conv2d(3, 4, 3), norm), "bn", virtual_batch_size=2)
    assert type(convert_norm(network, "mbn+ws", batch_size=2)[1]) is layers.MomentumBatchNorm
    assert type(network[0]) is layers.WSConv2d
    assert type(convert_norm(nn.Sequential(nn.SyncBatchNorm(4)), "gn")[0]) is layers.GroupNorm


def test_a_convolution_whose_output_is_used_as_it_is_is_not_standardized():
    """A transposed one would otherwise be refused."""
    head = [nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2), nn.ReLU(), *head)
    convert_norm(network, "gn+ws")
    kinds = [type(m) for m in network if isinstance(m, nn.modules.conv._ConvNd)]
    assert kinds == [layers.WSConv2d, nn.ConvTranspose2d, layers.WSConv2d, nn.Conv2d]
    before_activation = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.Linear(4, 2))
    assert type(convert_norm(before_activation, "gn+ws")[2]) is layers.WSConv2d
    assert type(standardize_convolutions(nn.Sequential(nn.Conv2d(4, 2, 1)))[0]) is layers.WSConv2d


def test_standardized_gates_would_saturate():
    """Why the conversion leaves them out: MobileNetV3's hard sigmoids would stand at 0 or 1."""

    def saturated(network):
        shares = []
        for gate in [m for m in network.modules() if isinstance(m, SqueezeExcitation)][-3:]:
            act = gate.scale_activation
            act.register_forward_hook(lambda *call: shares.append(((call[2] == 0) | (call[2] == 1)).float().mean()))
        network(images())
        assert len(shares) == 3
        return torch.stack(shares)

    converted = convert_norm(model("mobilenet_v3_small").train(), "gn+ws")
    assert saturated(copy.deepcopy(converted)).max() < 0.05
    assert saturated(standardize_convolutions(converted)).min() > 0.5


def test_standardized_convolutions_are_the_same_objects():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4))
    convolution, weight = network[0], network[0].weight
    convert_norm(network, "gn+ws", ws_eps=1e-3)
    assert network[0] is convolution
    assert convolution.weight is weight
    assert convolution.ws_eps == 1e-3
    x = images(1, 8)[:, :1].expand(1, 4, 8, 8)
    expected = nn.functional.conv2d(x, layers.weight_standardize(weight, 1e-3), convolution.bias, groups=4)
    assert torch.equal(convolution(x), expected)


def fresh():
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, groups=8), nn.BatchNorm2d(8))


@pytest.mark.parametrize(
    ("network", "arguments", "error", "message"),
    [
        (fresh(), ("gnn",), ValueError, "name must be one of bn, .* got 'gnn'; did you mean 'gn'"),
        (fresh(), (None,), ValueError, "name must be one of"),
        (fresh(), ("none",), ValueError, "name must be one of bn, .* got 'none'"),
        (fresh(), ("gn+sw",), ValueError, r"name must be .* got 'gn\+sw'; did you mean 'gn\+ws'"),
        (fresh(), ("gn+ws",), ValueError, "2: a filter of one weight cannot be standardized"),
        (fresh(), ("mbn",), TypeError, "batch_size"),
        (fresh(), ("gn", {"num_groups": 0}), ValueError, "num_groups must be an integer of at least 1, got 0"),
        (fresh(), ("gn", {"ws_eps": 1e-5}), TypeError, "ws_eps"),
        (fresh()[:2], ("gn+ws", {"ws_eps": -1}), ValueError, "ws_eps must be a number above 0 and finite, got -1"),
        (fresh(), ("brn", {"r_max": 0.5}), ValueError, "r_max must be a number of at least 1, got 0.5"),
        (nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)), ("gn+ws",), ValueError,
         "0: only nn.Conv2d can be standardized, got Conv1d"),
        (nn.Sequential(nn.Linear(4, 4)), ("gn",), ValueError, "model must contain a Batch Norm, got Sequential"),
    ],
)  # fmt: skip
def test_a_refused_conversion_leaves_the_model_alone(network, arguments, error, message):
    modules, before = list(network.modules()), copy.deepcopy(network.state_dict())
    kinds = [type(m) for m in modules]
    name, options = arguments[0], dict(*arguments[1:])
    with pytest.raises(error, match=message):
        convert_norm(network, name, **options)
    assert [id(m) for m in network.modules()] == [id(m) for m in modules]
    assert [type(m) for m in modules] == kinds
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Activated(nn.BatchNorm2d):
    """As timm's: a Batch Norm that does more."""

    def forward(self, x):
        return super().forward(x).relu()


def without_bias():
    network = nn.BatchNorm2d(8)
    network.bias = None
    return network


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (Activated(8), "1: Activated has a forward of its own, which would be lost"),
        (without_bias(), "1: weight and bias must be plain parameters, or both None"),
        (nn.utils.parametrizations.weight_norm(nn.BatchNorm2d(8), dim=None), "1: weight and bias must be plain"),
    ],
    ids=["subclass", "no bias", "parametrized"],
)
def test_a_batch_norm_of_which_something_would_be_lost_is_refused(norm, message):
    network = nn.Sequential(nn.BatchNorm2d(8), norm)
    with pytest.raises(ValueError, match=message):
        convert_norm(network, "bn")
    assert type(network[0]) is nn.BatchNorm2d


def test_the_first_half_of_a_batch_channel_norm_stays_what_it_is():
    network = convert_norm(nn.Sequential(nn.BatchNorm2d(8), nn.Identity()), "bcn", num_groups=2)
    network[1] = nn.BatchNorm2d(8)
    convert_norm(network, "gn", num_groups=2)
    assert [type(m) for m in network] == [layers.BatchChannelNorm, layers.GroupNorm]
    assert type(network[0].batch) is layers.BatchNorm
