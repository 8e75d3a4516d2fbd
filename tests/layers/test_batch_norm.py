"""Batch Norm against torch's layers, on both of its paths: torch's kernel and the fused normalization."""

import copy
import pickle

import pytest
import torch
from compare import PATHS, TorchBatchNorm, assert_same, measure, normal, randomize, take
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from normlib.layers import BatchNorm, batch_norm

few_examples = settings(derandomize=True, deadline=None, max_examples=25)
CHANNELS = 5
SHAPES = [(8, 5), (6, 5, 3), (4, 5, 3, 2), (2, 5, 2, 3, 2), (3, 5, 1, 1), (1, 5, 4)]


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Each way to compute, whatever the size."""
    take(monkeypatch, request.param)
    return request.param


@pytest.fixture
def fused_calls(monkeypatch):
    """The shapes that went through the fused normalization."""
    shapes = []

    def spy(x, *arguments, **options):
        shapes.append(tuple(x.shape))
        return original(x, *arguments, **options)

    original = batch_norm.batch_normalize
    monkeypatch.setattr(batch_norm, "batch_normalize", spy)
    return shapes


def pair(dtype=torch.float64, **options):
    """Our layer and torch's, with the same parameters and buffers."""
    ours = randomize(BatchNorm(CHANNELS, **options)).to(dtype)
    theirs = TorchBatchNorm(CHANNELS, **options).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"momentum": 0.0}, {"momentum": 1.0}, {"eps": 0.1}, {"affine": False},
     {"track_running_stats": False}, {"affine": False, "track_running_stats": False}],
    ids=str,
)  # fmt: skip
def test_three_steps_and_evaluation_agree_with_torch(path, shape, options):
    ours, theirs = pair(**options)
    for seed in range(3):
        x, dy = 3 * normal(*shape, seed=seed) + 1, normal(*shape, seed=seed + 100)
        assert_same(measure(ours, x, dy), measure(theirs, x, dy))
    ours.eval(), theirs.eval()
    assert_same(measure(ours, x, dy), measure(theirs, x, dy))
    if ours.track_running_stats:
        assert ours.num_batches_tracked == 3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32_agrees_with_float64(path, shape):
    ours, theirs = pair()
    x, dy = normal(*shape, dtype=torch.float32), normal(*shape, seed=1, dtype=torch.float32)
    assert_same(measure(ours.float(), x, dy), measure(theirs, x.double(), dy.double()), 1e-5)


def test_large_contiguous_inputs_take_the_fused_path(fused_calls):
    layer = BatchNorm(2)
    large, small = torch.zeros(2, 2, 300, 300), torch.zeros(2, 2, 8, 8)
    for x in (small, large, large.to(memory_format=torch.channels_last)):
        layer(x)
    assert fused_calls == [tuple(large.shape)]


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (2, 5, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("virtual", [None, 2])
def test_channels_last_keeps_values_and_memory_order(path, shape, virtual):
    memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    layer = randomize(BatchNorm(CHANNELS, virtual_batch_size=virtual)).double()
    plain = copy.deepcopy(layer)
    x, dy = normal(*shape), normal(*shape, seed=1)
    got = measure(layer, x.to(memory_format=memory_format), dy.to(memory_format=memory_format))
    assert_same(got, measure(plain, x, dy))
    assert got["y"].stride() == got["dx"].stride() == x.to(memory_format=memory_format).stride()
    # and a gradient that comes in the other order
    got = measure(copy.deepcopy(layer), x.to(memory_format=memory_format), dy)
    assert_same(got, measure(copy.deepcopy(plain), x, dy))


@pytest.mark.parametrize("virtual", [None, 2])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 2),
        lambda x: x[:, :, ::2],
        lambda x: x[:1].expand(4, *x.shape[1:]),
        lambda x: x[..., :1].expand(*x.shape[:-1], 3),
    ],
    ids=["transposed", "strided", "expanded batch", "expanded space"],
)
def test_non_contiguous_inputs(path, view, virtual):
    ours = randomize(BatchNorm(CHANNELS, virtual_batch_size=virtual)).double()
    x = view(normal(4, CHANNELS, 4))
    dy = normal(*x.shape, seed=1)
    assert not x.is_contiguous()
    expected = measure(copy.deepcopy(ours), x.contiguous(), dy)
    assert_same(measure(ours, x, dy), expected)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("virtual", [None, 6])  # 6: one virtual batch, on the fused path in every case
def test_half_precision_inputs_are_rounded_once(path, shape, dtype, virtual):
    ours, theirs = pair()
    ours = ours.float()
    ours.virtual_batch_size = virtual
    x, dy = normal(*shape, dtype=dtype) + 2, normal(*shape, seed=1, dtype=dtype)
    got, expected = measure(ours, x, dy), measure(theirs, x.double(), dy.double())
    assert got["y"].dtype == got["dx"].dtype == dtype
    assert got["dweight"].dtype == got["running_var"].dtype == torch.float32
    half = {"y", "dx"}
    # one rounding of the result: half a unit in the last place, of values up to the largest
    assert_same({k: got[k] for k in half}, {k: expected[k] for k in half}, torch.finfo(dtype).eps)
    assert_same({k: got[k] for k in got.keys() - half}, {k: expected[k] for k in got.keys() - half}, 1e-5)


def test_autocast(path):
    ours, theirs = pair()
    linear = nn.Linear(4, CHANNELS)
    x = normal(64, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = linear(x)
        y = ours.float()(features)
        y.float().square().sum().backward()
    assert features.dtype == y.dtype == torch.bfloat16
    assert_same({"y": y.detach()}, {"y": theirs(features.detach().double()).detach()}, torch.finfo(torch.bfloat16).eps)
    assert linear.weight.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(8, 5), (8, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("m", [2, 4, 8])
def test_virtual_batches_are_separate_layers(path, shape, momentum, m):
    layer = randomize(BatchNorm(CHANNELS, momentum=momentum, virtual_batch_size=m)).double()
    before = copy.deepcopy(layer.state_dict())
    x, dy = normal(*shape), normal(*shape, seed=1)
    expected, running = [], []
    for part, dpart in zip(x.split(m), dy.split(m), strict=True):
        device = TorchBatchNorm(CHANNELS, momentum=1.0).double()  # its running averages are this part's statistics
        device.load_state_dict(before)
        expected.append(measure(device, part, dpart))
        running.append((device.running_mean, device.running_var))
    share = 1.0 if momentum is None else momentum
    got = measure(layer, x, dy)
    wanted = {name: torch.cat([e[name] for e in expected]) for name in ("y", "dx")}
    wanted |= {name: sum(e[name] for e in expected) for name in ("dweight", "dbias")}
    for i, name in enumerate(("running_mean", "running_var")):
        mean_over_parts = torch.stack([r[i] for r in running]).mean(0)
        wanted[name] = (1 - share) * before[name] + share * mean_over_parts
    wanted["num_batches_tracked"] = torch.tensor(1)
    assert_same(got, wanted)
    layer.eval()
    whole = TorchBatchNorm(CHANNELS).double().eval()
    whole.load_state_dict(layer.state_dict())
    assert_same(measure(layer, x[:1], dy[:1]), measure(whole, x[:1], dy[:1]))  # evaluation knows no virtual batches


def test_one_channel_in_virtual_batches_has_its_own_statistics():
    """Repeated for every virtual batch, its averages must not be one number in memory, which the kernel would move."""
    x = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    one, two = BatchNorm(1, virtual_batch_size=2), BatchNorm(2, virtual_batch_size=2)
    one(x)
    two(x.repeat(1, 2))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name)[:1])


def stateless(layer):
    """The layer as a function of x, weight and bias; its buffers stay as they are."""
    buffers = dict(layer.named_buffers())

    def function(x, *parameters):
        named = dict(zip(("weight", "bias"), parameters, strict=False))
        return functional_call(layer, (named, {k: v.clone() for k, v in buffers.items()}), (x,))

    return function


@pytest.mark.parametrize("virtual", [None, 2])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 3)], ids=str)
def test_first_and_second_derivatives(path, shape, affine, virtual):
    layer = randomize(BatchNorm(2, affine=affine, virtual_batch_size=virtual)).double()
    inputs = [normal(*shape).requires_grad_(), *layer.parameters()]
    torch.autograd.gradcheck(stateless(layer), inputs)
    torch.autograd.gradgradcheck(stateless(layer), inputs)


@pytest.mark.parametrize("virtual", [None, 2])
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3, 2)], ids=str)
def test_many_layers_at_once(path, shape, virtual):
    """torch.func.vmap over stacked layers, as seeds are trained together: values, gradients and buffers."""
    layers = [randomize(BatchNorm(CHANNELS, virtual_batch_size=virtual), seed).double() for seed in range(3)]
    x, dy = normal(3, *shape), normal(3, *shape, seed=1)
    parameters, buffers = stack_module_state(layers)

    def forward(p, b, x):
        return functional_call(layers[0], (p, b), (x,))

    x.requires_grad_()
    y = vmap(forward)(parameters, buffers, x)
    dx, dweight, dbias = torch.autograd.grad(y, [x, parameters["weight"], parameters["bias"]], dy)
    got = {"y": y.detach(), "dx": dx, "dweight": dweight, "dbias": dbias, **buffers}
    for i, layer in enumerate(layers):
        assert_same({name: value[i] for name, value in got.items()}, measure(layer, x[i], dy[i]))


@pytest.mark.parametrize("virtual", [None, 2])
def test_gradients_inside_vmap(path, virtual):
    layer = randomize(BatchNorm(CHANNELS, track_running_stats=False, virtual_batch_size=virtual)).double()
    x, dy = normal(3, 4, CHANNELS, 3), normal(4, CHANNELS, 3, seed=1)
    each = vmap(grad(lambda x: (layer(x) * dy).sum()))(x)
    for i in range(3):
        assert_same({"dx": each[i]}, {"dx": measure(layer, x[i], dy)["dx"]})


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:.*not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("virtual", [None, 2])
@pytest.mark.parametrize("path", ["kernel", "fused"], indirect=True)  # nothing compiled goes by rows
def test_compiled_without_a_graph_break(path, virtual):
    torch.compiler.reset()
    plain = randomize(BatchNorm(CHANNELS, virtual_batch_size=virtual)).double()
    layer = copy.deepcopy(plain)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for seed in range(2):
        x, dy = normal(4, CHANNELS, 3, seed=seed), normal(4, CHANNELS, 3, seed=9)
        got = {name.replace("_orig_mod.", ""): value for name, value in measure(compiled, x, dy).items()}
        got = {name.replace("d_orig_mod.", "d"): value for name, value in got.items()}
        assert_same(got, measure(plain, x, dy))


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_state_dict_both_ways(kind):
    ours, theirs = randomize(BatchNorm(CHANNELS), 1), randomize(kind(CHANNELS), 2)
    ours.num_batches_tracked.fill_(7)
    theirs.load_state_dict(ours.state_dict())
    assert_same(dict(theirs.state_dict()), dict(ours.state_dict()), 0)
    theirs = randomize(theirs, 3)
    ours.load_state_dict(theirs.state_dict())
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()), 0)


def test_copies_and_dtypes():
    layer = randomize(BatchNorm(CHANNELS, momentum=0.3, virtual_batch_size=2))
    x = normal(4, CHANNELS, 2, dtype=torch.float32)
    layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same(dict(twin.state_dict()), dict(layer.state_dict()), 0)
        assert torch.equal(twin(x), copy.deepcopy(layer)(x))
    double = copy.deepcopy(layer).to(torch.float64)
    assert {t.dtype for t in double.state_dict().values()} == {torch.float64, torch.int64}
    assert double(x.double()).dtype == torch.float64
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert half.running_mean.dtype == torch.bfloat16


def test_repr_names_what_was_asked():
    assert repr(BatchNorm(5)) == "BatchNorm(5, momentum=0.1, track_running_stats=True, eps=1e-05, affine=True)"
    text = repr(BatchNorm(5, momentum=None, affine=False, track_running_stats=False, virtual_batch_size=4))
    expected = "5, momentum=None, track_running_stats=False, eps=1e-05, affine=False, virtual_batch_size=4"
    assert text == f"BatchNorm({expected})"


def test_reset_running_stats():
    layer = randomize(BatchNorm(CHANNELS, momentum=None))
    layer(normal(4, CHANNELS, dtype=torch.float32))
    layer.reset_running_stats()
    assert_same(dict(layer.named_buffers()), dict(BatchNorm(CHANNELS).named_buffers()), 0)
    BatchNorm(CHANNELS, track_running_stats=False).reset_running_stats()


# Properties, for any shape and scale

shapes = st.lists(st.integers(1, 4), max_size=3).flatmap(
    lambda rest: st.tuples(st.integers(2, 6), st.integers(1, 4), *(st.just(r) for r in rest))
)
seeds = st.integers(0, 2**16)
path_names = st.sampled_from(sorted(PATHS))
NEGLIGIBLE = 1e-30  # an eps far below every variance


def on(path, layer, x):
    """The layer's output on one of its paths."""
    with pytest.MonkeyPatch.context() as patch:
        take(patch, path)
        return layer(x)


def bare(x, **options):
    return BatchNorm(x.shape[1], eps=NEGLIGIBLE, affine=False, **options).double()


def groupwise(x, groups):
    """(N, C, *) as (groups, C, values that share a statistic)."""
    return x.reshape(groups, -1, *x.shape[1:]).movedim(2, 1).flatten(2)


@few_examples
@given(shapes, seeds, path_names, st.integers(1, 3), st.floats(-3, 3), st.floats(-2, 2))
def test_outputs_have_mean_0_and_variance_1(shape, seed, path, groups, log_scale, shift):
    m, *rest = shape
    x = (normal(groups * m, *rest, seed=seed) + shift) * 10**log_scale
    y = groupwise(on(path, bare(x, virtual_batch_size=m if groups > 1 else None), x), groups)
    torch.testing.assert_close(y.mean(2), torch.zeros_like(y[..., 0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(y.square().mean(2), torch.ones_like(y[..., 0]), rtol=1e-9, atol=0)


@few_examples
@given(shapes, seeds, path_names, st.floats(-3, 3), st.floats(-10, 10))
def test_shift_and_positive_scale_per_channel_do_not_matter(shape, seed, path, log_scale, shift):
    x = normal(*shape, seed=seed)
    channel = (1, -1) + (1,) * (x.dim() - 2)
    steps = torch.arange(1, shape[1] + 1).double().view(channel)
    moved = x * steps * 10**log_scale + shift * steps * 10**log_scale
    torch.testing.assert_close(on(path, bare(x), moved), on(path, bare(x), x), rtol=0, atol=1e-8)


@few_examples
@given(shapes, seeds, path_names)
def test_gradient_is_orthogonal_to_ones_and_to_the_output(shape, seed, path):
    x = normal(*shape, seed=seed).requires_grad_()
    y = on(path, bare(x), x)
    dx = groupwise(torch.autograd.grad(y, x, normal(*shape, seed=seed + 1))[0], 1)
    scale = dx.abs().amax() + 1
    y = groupwise(y.detach(), 1)
    assert (dx.sum(2) / scale).abs().max() < 1e-8
    assert ((dx * y).sum(2) / scale).abs().max() < 1e-7


@few_examples
@given(shapes, seeds, path_names)
def test_two_values_per_channel_become_plus_and_minus_one(shape, seed, path):
    x = normal(2, shape[1], seed=seed)
    torch.testing.assert_close(on(path, bare(x), x).abs(), torch.ones_like(x), rtol=1e-9, atol=0)


# Hard numbers in float32, against float64 on the same float32 input


def far(shape=(16, CHANNELS, 8, 8)):
    return normal(*shape).add(1e4).float(), normal(*shape, seed=1).float()


def quantum(x):
    """The distance between neighbouring float32 numbers at the largest value of x."""
    top = x.abs().max()
    return (torch.nextafter(top, torch.tensor(torch.inf)) - top).item()


def float32_against_float64(layer, x, dy, tolerance):
    exact = TorchBatchNorm(CHANNELS).double()
    assert_same(measure(layer, x, dy), measure(exact, x.double(), dy.double()), tolerance)


def test_large_mean_small_deviation(path):
    x, dy = far()
    # σ = 1: a mean rounded to one unit in its last place moves x̂ by that unit
    float32_against_float64(BatchNorm(CHANNELS), x, dy, 2 * quantum(x))


def test_constant_channels(path):
    values = torch.tensor([1e4 + 0.1234, 1.1, -777.77, 0.0, 3e-5])
    x = values.view(1, -1, 1, 1).expand(64, CHANNELS, 32, 32).contiguous()
    x.requires_grad_()
    layer = BatchNorm(CHANNELS)
    y = layer(x)
    y.backward(normal(*x.shape, seed=1).float())
    # exactly 0; a mean off by one unit in its last place would show up 1 / √ε times larger
    channel_quantum = torch.tensor([quantum(v) for v in values]).view(1, -1, 1, 1)
    assert (y.detach().abs() <= channel_quantum / layer.eps**0.5).all()
    assert x.grad.isfinite().all()
    assert (layer.running_var - 0.9).abs().max() < 1e-6
    torch.testing.assert_close(layer.running_mean, 0.1 * values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("outlier", [1e6, -1e15])
@pytest.mark.parametrize("where", [0, -1])
def test_one_huge_outlier(path, outlier, where):
    x, dy = normal(16, CHANNELS, 8, 8).float(), normal(16, CHANNELS, 8, 8, seed=1).float()
    x[where, :, where, where] = outlier
    float32_against_float64(BatchNorm(CHANNELS), x, dy, 1e-5)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_tiny_and_huge_scales_stay_finite(path, scale):
    x, dy = normal(16, CHANNELS, 8, 8).float() * scale, normal(16, CHANNELS, 8, 8, seed=1).float()
    float32_against_float64(BatchNorm(CHANNELS), x, dy, 1e-5)


# The comparison itself must notice


class Plain(nn.Module):
    """Batch Norm by autograd, with a mistake planted."""

    def __init__(self, mistake=None):
        super().__init__()
        self.mistake = mistake
        self.weight, self.bias = nn.Parameter(torch.ones(CHANNELS)), nn.Parameter(torch.zeros(CHANNELS))
        self.register_buffer("running_mean", torch.zeros(CHANNELS))
        self.register_buffer("running_var", torch.ones(CHANNELS))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x):
        dims = [d for d in range(x.dim()) if d != 1]
        n = x.numel() // CHANNELS
        mean = x.mean(dims, keepdim=True)
        var = (x - mean).square().mean(dims, keepdim=True)
        unbiased = var * n / (n - 1)
        with torch.no_grad():
            stored = var if self.mistake == "biased variance stored" else unbiased
            share = 0.9 if self.mistake == "momentum weighs the old value" else 0.1
            self.running_mean.lerp_(mean.flatten(), share)
            self.running_var.lerp_(stored.flatten(), share)
            self.num_batches_tracked += 1
        if self.mistake == "variance as E[x²] − E[x]²":
            var = x.square().mean(dims, keepdim=True) - mean.square()
        if self.mistake == "normalized by the unbiased variance":
            var = unbiased
        if self.mistake in ("gradient without ⟨g x̂⟩", "no gradient through the statistics"):
            var = var.detach()
        if self.mistake == "no gradient through the statistics":
            mean = mean.detach()
        root = var.sqrt() + 1e-5 if self.mistake == "eps outside the root" else (var + 1e-5).sqrt()
        weight, bias = (p.view(1, -1, *[1] * (x.dim() - 2)) for p in (self.weight, self.bias))
        if self.mistake == "γ times x":
            return weight * x + bias
        return weight * ((x - mean) / root) + bias


MISTAKES = [
    "biased variance stored",
    "momentum weighs the old value",
    "normalized by the unbiased variance",
    "gradient without ⟨g x̂⟩",
    "no gradient through the statistics",
    "eps outside the root",
    "γ times x",
]


def against_torch(layer):
    x, dy = normal(4, CHANNELS, 3), normal(4, CHANNELS, 3, seed=1)
    assert_same(measure(layer.double(), x, dy), measure(TorchBatchNorm(CHANNELS).double(), x, dy))


def test_the_comparison_accepts_a_right_layer():
    against_torch(Plain())
    x, dy = far()
    float32_against_float64(Plain(), x, dy, 2 * quantum(x))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_rejects(mistake):
    with pytest.raises(AssertionError, match="off by"):
        against_torch(Plain(mistake))


def test_the_comparison_rejects_a_cancelling_variance():
    x, dy = far()
    with pytest.raises(AssertionError, match="off by"):
        float32_against_float64(Plain("variance as E[x²] − E[x]²"), x, dy, 2 * quantum(x))


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": 0}, "num_features must be an integer of at least 1, got 0"),
        ({"num_features": 2.0}, "num_features .* got 2.0"),
        ({"num_features": True}, "num_features .* got True"),
        ({"eps": 0}, "eps must be a number above 0 and finite, got 0"),
        ({"eps": -1e-5}, "eps .* got -1e-05"),
        ({"eps": float("inf")}, "eps .* got inf"),
        ({"eps": float("nan")}, "eps .* got nan"),
        ({"eps": "1"}, "eps .* got '1'"),
        ({"eps": None}, "eps .* got None"),
        ({"momentum": -0.1}, r"momentum must be a number in \[0, 1\], got -0.1"),
        ({"momentum": 1.5}, "momentum .* got 1.5"),
        ({"momentum": float("nan")}, "momentum .* got nan"),
        ({"momentum": "0.1"}, "momentum .* got '0.1'"),
        ({"momentum": True}, "momentum .* got True"),
        ({"virtual_batch_size": 0}, "virtual_batch_size must be an integer of at least 1, got 0"),
        ({"virtual_batch_size": -2}, "virtual_batch_size .* got -2"),
        ({"virtual_batch_size": 2.0}, "virtual_batch_size .* got 2.0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchNorm(**{"num_features": CHANNELS} | arguments)


@pytest.mark.parametrize(
    ("x", "virtual", "message"),
    [
        (torch.zeros(5), None, r"x must have shape \(N, C, \*\) with a batch dimension, got \(5,\)"),
        (torch.tensor(1.0), None, r"x must have shape .* got \(\)"),
        (torch.zeros(5, 4, 4), None, r"x must have C = num_features = 5 channels, got shape \(5, 4, 4\)"),
        (torch.zeros(4, 6), None, r"x .* = 5 channels, got shape \(4, 6\)"),
        (torch.zeros(4, 4, 4, 5), None, r"x .* = 5 channels, got shape \(4, 4, 4, 5\)"),
        (torch.zeros(4, 5, dtype=torch.int64), None, "x must be floating point, got torch.int64"),
        (torch.zeros(4, 5, dtype=torch.bool), None, "x must be floating point, got torch.bool"),
        (torch.zeros(4, 5, dtype=torch.complex64), None, "x must be floating point, got torch.complex64"),
        (torch.zeros(1, 5), None, r"x must hold at least 2 values .* got 1 \(shape \(1, 5\)"),
        (torch.zeros(1, 5, 1, 1), None, r"x must hold at least 2 values .* got 1 \(shape \(1, 5, 1, 1\)"),
        (torch.zeros(0, 5), None, r"x must hold at least 2 values .* got 0 \(shape \(0, 5\)"),
        (torch.zeros(4, 5, 0), None, r"x must hold at least 2 values .* got 0 \(shape \(4, 5, 0\)"),
        (torch.zeros(4, 5), 1, r"x must hold at least 2 values .* virtual_batch_size 1\)"),
        (torch.zeros(5, 5), 2, "the batch size must be a positive multiple of virtual_batch_size = 2, got 5"),
        (torch.zeros(2, 5), 4, "virtual_batch_size = 4, got 2"),
        (torch.zeros(0, 5), 2, "virtual_batch_size = 2, got 0"),
    ],
    ids=lambda value: f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else "",
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_refused_inputs_change_nothing(path, x, virtual, message, momentum):
    layer = randomize(BatchNorm(CHANNELS, momentum=momentum, virtual_batch_size=virtual))
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match=message):
        layer(x)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_single_value_is_refused_only_where_batch_statistics_are_used():
    x = torch.ones(1, CHANNELS)
    assert BatchNorm(CHANNELS).eval()(x).shape == x.shape
    with pytest.raises(ValueError, match="at least 2 values"):
        BatchNorm(CHANNELS, track_running_stats=False).eval()(x)


# Values that are not finite, without a look at them from the host


class NoSynchronization(TorchDispatchMode):
    """Refuses every operation whose result the host has to wait for."""

    forbidden = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in self.forbidden:
            raise AssertionError(f"{function} synchronizes")
        return function(*args, **(kwargs or {}))


def test_the_guard_against_synchronization_works():
    with NoSynchronization(), pytest.raises(AssertionError, match="synchronizes"):
        torch.ones(1).item()
    with NoSynchronization(), pytest.raises(AssertionError, match="synchronizes"):
        assert (torch.ones(2) > 0).all()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("virtual", [None, 2])
def test_non_finite_values_spare_the_running_averages(path, momentum, virtual):
    layer = randomize(BatchNorm(CHANNELS, momentum=momentum, virtual_batch_size=virtual))
    reference = TorchBatchNorm(CHANNELS, momentum=momentum)
    reference.load_state_dict(layer.state_dict())
    before = copy.deepcopy(layer.state_dict())
    clean = normal(4, CHANNELS, 3, dtype=torch.float32)
    x = clean.clone()
    x[0, 0, 0], x[1, 1, 1], x[2, 2, 2] = torch.nan, torch.inf, -torch.inf
    with NoSynchronization():
        y = layer(x)
        y.sum().backward()
    if virtual is None:
        assert torch.equal(y.isnan(), reference(x).isnan())
    assert y[:, :3].isnan().any(2).any(0).all()
    assert y[:, 3:].isfinite().all()
    healthy = BatchNorm(CHANNELS, momentum=momentum, virtual_batch_size=virtual)
    healthy.load_state_dict(before)
    healthy(clean)
    for name in ("running_mean", "running_var"):
        now = getattr(layer, name)
        assert torch.equal(now[:3], before[name][:3])
        assert torch.equal(now[3:], getattr(healthy, name)[3:])
        assert not torch.equal(now[3:], before[name][3:])


def test_runs_where_there_are_no_values_to_look_at(path):
    with torch.device("meta"):
        for virtual in (None, 2):
            layer = BatchNorm(CHANNELS, virtual_batch_size=virtual)
            x = torch.empty(4, CHANNELS, 3, requires_grad=True)
            layer(x).sum().backward()
            assert x.grad.shape == x.shape


# Memory


@pytest.mark.parametrize("virtual", [None, 8])
@pytest.mark.parametrize("affine", [True, False])
def test_saves_no_more_than_one_tensor_of_the_input_size(path, virtual, affine):
    layer = BatchNorm(CHANNELS, affine=affine, virtual_batch_size=virtual)
    x = normal(16, CHANNELS, 8, 8, dtype=torch.float32).requires_grad_()
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    sizes = sorted(saved.values(), reverse=True)
    assert sizes[0] == x.numel() * 4
    assert sum(sizes[1:]) <= 8 * CHANNELS * 4 * (1 if virtual is None else 2)


def test_a_state_from_before_the_count_of_batches_loads_as_into_torchs_layer():
    old = {name: value for name, value in nn.BatchNorm2d(4).state_dict().items() if "tracked" not in name}
    assert list(old) == ["weight", "bias", "running_mean", "running_var"]
    layer = BatchNorm(4)
    layer.num_batches_tracked += 3
    layer.load_state_dict(old)
    assert layer.num_batches_tracked == 0
    now = nn.BatchNorm2d(4).state_dict()  # of a version that stores the count: not whole without it
    del now["num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        layer.load_state_dict(now)
