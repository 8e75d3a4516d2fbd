"""What every layer must do, whatever its method: the formulas, torch's transformations, bad input, hard numbers."""

import copy
import pickle
import shutil

import pytest
import torch
import torch._inductor.config
from compare import PATHS, assert_same, measure, normal, randomize, take
from references import CASES, METHODS, NAMES, SHAPES, C, build, contract, pair, shapes_for, spread, state
from torch._dynamo.utils import counters
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from normlib.layers import BatchNorm, BatchRenorm, GroupNorm, InstanceNorm, LayerNorm, MomentumBatchNorm, _batch
from normlib.schedules import renorm_limits

pytestmark = pytest.mark.usefixtures("one_thread")
ONE_EACH = {method: cases[1 if method == "mbn" else 0] for method, (_, _, cases) in METHODS.items()}
RENORM = {"r_max": 1.5, "d_max": 0.5}


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Each way to compute, whatever the size."""
    take(monkeypatch, request.param)
    return request.param


def each(method, **more):
    return build(METHODS[method][0], ONE_EACH[method] | (RENORM if method == "brn" else {}) | more)


BATCH = [m for m in METHODS if any(isinstance(part, _batch.BatchStatistics) for part in each(m).modules())]


@pytest.mark.parametrize(("method", "options"), CASES, ids=NAMES)
def test_contract(path, method, options):
    contract(method, options)


@pytest.mark.parametrize("shape", SHAPES[2:], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_channels_last(path, method, shape):
    layer = randomize(each(method)).double()
    plain = copy.deepcopy(layer)
    memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x, dy = spread(normal(*shape)), normal(*shape, seed=1)
    got = measure(layer, x.to(memory_format=memory_format), dy.to(memory_format=memory_format))
    assert_same(got, measure(plain, x, dy))
    assert got["y"].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, C, 7, 1), (1, C, 5, 3), (3, C, 1, 5)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_dimension_of_size_1_whatever_the_memory_order(path, method, shape, training):
    """There torch's Batch Norm takes a gradient for channels-last, or not, apart from its input (2.11)."""
    layer = randomize(each(method)).double().train(training)
    x, dy = spread(normal(*shape)), normal(*shape, seed=1)
    expected = measure(copy.deepcopy(layer), x.flatten(2), dy.flatten(2))
    expected |= {name: expected[name].view(shape) for name in ("y", "dx")}
    for order in ((0, 1, 2, 3), (0, 2, 3, 1), (1, 0, 2, 3), (3, 2, 1, 0)):
        back = [order.index(d) for d in range(4)]
        other = dy.permute(order).contiguous().permute(back)
        for given in (x, x.permute(order).contiguous().permute(back)):
            assert_same(measure(copy.deepcopy(layer), given, other), expected)


@pytest.mark.parametrize("method", METHODS)
def test_non_contiguous(path, method):
    layer = randomize(each(method)).double()
    plain = copy.deepcopy(layer)
    for view in (normal(3, C, 4).transpose(0, 2), normal(4, C, 6)[:, :, ::2], normal(1, C, 6).expand(4, C, 6)):
        dy = normal(*view.shape, seed=1)
        assert not view.is_contiguous()
        assert_same(measure(layer, view, dy), measure(plain, view.contiguous(), dy))


def second_order(layer, x, dy):
    """Gradients of a random combination of all first gradients."""
    x, dy = x.clone().requires_grad_(), dy.clone().requires_grad_()
    inputs = [x, *layer.parameters()]
    first = torch.autograd.grad(layer(x), inputs, dy, create_graph=True)
    total = sum((g * normal(*g.shape, seed=20 + i)).sum() for i, g in enumerate(first))
    second = torch.autograd.grad(total, [*inputs, dy], materialize_grads=True)
    return {f"second {i}": value for i, value in enumerate(second)}


@pytest.mark.parametrize(("method", "options"), CASES, ids=NAMES)
def test_second_derivatives(path, method, options):
    for shape in (shapes_for(method)[0], SHAPES[2]):
        layer, written = pair(method, options)
        written.load_state_dict(randomize(layer).state_dict())
        x, dy = spread(normal(*shape)), normal(*shape, seed=1)
        assert_same(second_order(layer, x, dy), second_order(written, x, dy), 1e-9)


def stateless(layer):
    """The layer as a function of x and its parameters; its buffers stay as they are."""
    names, buffers = [name for name, _ in layer.named_parameters()], dict(layer.named_buffers())

    def function(x, *parameters):
        copies = {name: value.clone() for name, value in buffers.items()}
        return functional_call(layer, (dict(zip(names, parameters, strict=True)), copies), (x,))

    return function


@pytest.mark.parametrize("method", ["gn", "ln", "in", "bcn", "mbn"])  # the others stop gradients: see their files
def test_finite_differences(path, method):
    layer = randomize(each(method)).double()
    inputs = [normal(2, C, 2).requires_grad_(), *layer.parameters()]
    torch.autograd.gradcheck(stateless(layer), inputs)
    torch.autograd.gradgradcheck(stateless(layer), inputs)


@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_layers_is_a_loop(path, method):
    made = [randomize(each(method), seed).double() for seed in range(3)]
    shape = (3, *SHAPES[2])
    x, dy = normal(*shape).requires_grad_(), normal(*shape, seed=1)
    parameters, buffers = stack_module_state(made)
    y = vmap(lambda p, b, x: functional_call(made[0], (p, b), (x,)))(parameters, buffers, x)
    dx, *gradients = torch.autograd.grad(y, [x, *parameters.values()], dy)
    named = {f"d{name}": value for name, value in zip(parameters, gradients, strict=True)}
    got = {"y": y.detach(), "dx": dx, **named, **buffers}
    for i, layer in enumerate(made):
        assert_same({name: value[i] for name, value in got.items()}, measure(layer, x[i], dy[i]))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_vmap_with_one_input_for_all_layers(path, method, gradients):
    made = [randomize(each(method), seed).double() for seed in range(3)]
    x, dy = normal(*SHAPES[2]), normal(*SHAPES[2], seed=1)
    parameters, buffers = stack_module_state(made)

    def loss(p, b):
        return (functional_call(made[0], (p, b), (x,)) * dy).sum()

    copies = {name: value.clone() for name, value in buffers.items()}
    got = vmap(grad(loss))(parameters, copies)
    for i, layer in enumerate(made):
        expected = measure(copy.deepcopy(layer), x, dy)
        assert_same({name: got[name][i] for name in got}, {name: expected[f"d{name}"] for name in got})
    with torch.set_grad_enabled(gradients):
        y = vmap(lambda p, b: functional_call(made[0], (p, b), (x,)))(parameters, buffers)
        for i, layer in enumerate(made):
            assert_same(
                {"y": y[i]} | {n: b[i] for n, b in buffers.items()}, {"y": layer(x)} | dict(layer.named_buffers())
            )


@pytest.mark.parametrize("method", METHODS)
def test_vmap_of_grad_is_a_loop(path, method):
    made = [randomize(each(method), seed).double() for seed in range(3)]
    x, dy = normal(3, *SHAPES[2]), normal(*SHAPES[2], seed=1)
    parameters, buffers = stack_module_state(made)

    def loss(p, b, x):
        return (functional_call(made[0], (p, b), (x,)) * dy).sum()

    got = vmap(grad(loss))(parameters, buffers, x)
    for i, layer in enumerate(made):
        expected = measure(layer, x[i], dy)
        assert_same({name: got[name][i] for name in got}, {name: expected[f"d{name}"] for name in got})


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore:.*should not be instantiated:DeprecationWarning"
)
@pytest.mark.parametrize("backend", ["aot_eager", "aot_eager_decomp_partition"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["kernel", "fused"], indirect=True)  # nothing compiled goes by rows
def test_compiled_without_a_graph_break(path, method, backend):
    """The second backend splits forward and backward as inductor does: it recomputes what it takes for cheap."""
    torch.compiler.reset()
    plain = randomize(each(method)).double()
    compiled = torch.compile(copy.deepcopy(plain), backend=backend, fullgraph=True)
    x, dy = normal(*SHAPES[2]), normal(*SHAPES[2], seed=1)
    got = {name.replace("_orig_mod.", ""): value for name, value in measure(compiled, x, dy).items()}
    assert_same(got, measure(plain, x, dy))
    with torch.no_grad():  # training mode without gradients, as statistics are gathered anew
        assert_same({"y": compiled(x)}, {"y": plain(x)})
    compiled.eval(), plain.eval()
    assert_same({"y": compiled(x).detach()}, {"y": plain(x).detach()})


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore:.*should not be instantiated:DeprecationWarning"
)
def test_a_moving_schedule_compiles_no_graph_for_every_epoch():
    torch.compiler.reset()
    counters.clear()
    ramp = lambda epoch, epochs: renorm_limits(epoch - 1, start=2, r_end=epochs, d_end=epochs)  # noqa: E731
    for layer in (BatchRenorm(C, schedule=ramp), MomentumBatchNorm(C, batch_size=4)):
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        for epoch in range(1, 13):  # more than torch's limit of 8
            layer.set_epoch(epoch, 12)
            compiled(normal(*SHAPES[2], dtype=torch.float32)).sum().backward()
    assert counters["stats"]["unique_graphs"] <= 4


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore:.*should not be instantiated:DeprecationWarning"
)
def test_compiled_by_inductor(monkeypatch, tmp_path):
    """The default backend recomputes still more; what keeps it from the history is the same in all layers."""
    take(monkeypatch, "fused")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # no precompiled headers, no trial compilations for vector instructions: most of a minute for one use
    monkeypatch.setattr(torch._inductor.config, "cpp_cache_precompile_headers", False)
    monkeypatch.setattr(torch._inductor.config.cpp, "simdlen", 1)
    torch.compiler.reset()
    plain = randomize(each("mbn")).double()
    compiled = torch.compile(copy.deepcopy(plain), fullgraph=True)
    x, dy = normal(*SHAPES[2]), normal(*SHAPES[2], seed=1)
    for _ in range(2):
        got = {name.replace("_orig_mod.", ""): value for name, value in measure(compiled, x, dy).items()}
        assert_same(got, measure(plain, x, dy))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_inputs_are_rounded_once(path, method, dtype):
    layer, written = pair(method, ONE_EACH[method])
    written.load_state_dict(randomize(layer).state_dict())
    shape = SHAPES[2]
    x, dy = spread(normal(*shape)).to(dtype), normal(*shape, seed=1, dtype=dtype)
    got, expected = measure(layer.float(), x, dy), measure(written, x.double(), dy.double())
    assert got["y"].dtype == got["dx"].dtype == dtype
    # BCN rounds its two halves one by one
    quantum = torch.finfo(dtype).eps * (4 if "bcn" in method else 1)
    for name, value in got.items():
        if name.startswith("d") or name.endswith("weight") or name in ("y", "weight", "bias"):
            assert_same({name: value}, {name: expected[name]}, quantum)
        else:
            assert value.dtype in (torch.float32, torch.int64)
            assert_same({name: value}, {name: expected[name]}, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_autocast(path, method):
    layer, written = pair(method, ONE_EACH[method])
    written.load_state_dict(randomize(layer).state_dict())
    x = spread(normal(*SHAPES[2])).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer.float()(x)
    y.float().square().sum().backward()
    exact = written(x.detach().double()).detach()
    assert_same({"y": y.detach()}, {"y": exact}, 4 * torch.finfo(torch.bfloat16).eps)
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_whole_layer_in_half_precision(path, method, dtype, training):
    layer, written = pair(method, ONE_EACH[method])
    randomize(layer).to(dtype).train(training)
    written.load_state_dict(layer.state_dict())
    x = spread(normal(*SHAPES[2])).to(dtype)
    y, exact = layer(x), written.train(training)(x.double()).detach()
    assert y.dtype == dtype
    assert all(buffer.dtype in (dtype, torch.int64) for buffer in layer.buffers())
    assert_same({"y": y.detach()}, {"y": exact}, 4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("method", METHODS)
def test_copies_keep_everything(method):
    layer = randomize(each(method))
    x = normal(*SHAPES[2]).float()
    layer(x)
    fresh = each(method)
    fresh.load_state_dict(layer.state_dict())
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh]
    y = layer(x)
    for twin in twins:
        assert repr(twin) == repr(layer)
        assert torch.equal(twin(x), y)
        assert_same(state(twin), state(layer), 0)


@pytest.mark.parametrize("method", BATCH)
def test_every_statistic_is_a_buffer_and_can_be_reset(method):
    layer = each(method)
    start = state(layer)
    layer(normal(*SHAPES[2]).float() + 3)
    moved = {name for name, value in state(layer).items() if not torch.equal(value, start[name])}
    buffers = {name for name, _ in layer.named_buffers()}
    assert moved == buffers
    (layer.batch if "bcn" in method else layer).reset_running_stats()
    assert_same(state(layer), start, 0)
    layer.eval()
    layer(normal(*SHAPES[2]).float())
    assert_same(state(layer), start, 0)


# Memory


@pytest.mark.parametrize("method", METHODS)
def test_activations_saved_for_backward(path, method):
    """One tensor of the input's size, for BCN's two normalizations too, unless it is small."""
    layer = each(method)
    x = normal(16, C, 8, 8).float().requires_grad_()
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    size = x.numel() * 4
    whole = 2 if "bcn" in method and path == "kernel" else 1
    assert sum(nbytes >= size for nbytes in saved.values()) == whole
    assert sum(saved.values()) - whole * size < size / 4


# Bad input

INPUTS = [
    (torch.zeros(()), r"x must have shape \(N, C, \*\) .* got \(\)"),
    (torch.zeros(C), r"x must have shape \(N, C, \*\) .* got \(4,\)"),
    (torch.zeros(C, 2, 2), r"x must have C = num_features = 4 channels, got shape \(4, 2, 2\)"),
    (torch.zeros(2, 3, 3, C), r"x must have C = .* got shape \(2, 3, 3, 4\)"),
    (torch.zeros(4, C, 2, dtype=torch.int64), "x must be floating point, got torch.int64"),
    (torch.zeros(4, C, 2, dtype=torch.bool), "x must be floating point, got torch.bool"),
    (torch.zeros(4, C, 2, dtype=torch.complex64), "x must be floating point, got torch.complex64"),
    (torch.zeros(4, C, 0), "x must hold at least [12] values? per"),
]


@pytest.mark.parametrize(("x", "message"), INPUTS, ids=lambda v: str(tuple(v.shape)) if hasattr(v, "shape") else "")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_refused_inputs_change_nothing(path, method, training, x, message):
    layer = randomize(each(method)).train(training)
    before = state(layer)
    if not training and x.numel() == 0 and isinstance(layer, _batch.BatchStatistics):
        assert layer(x).shape == x.shape  # evaluation needs no values
        return
    with pytest.raises(ValueError, match=message):
        layer(x)
    assert_same(state(layer), before, 0)


@pytest.mark.parametrize(
    ("method", "options", "shape", "message"),
    [
        ("brn", {}, (1, C), r"at least 2 values per channel and statistic in training, got 1 \(shape \(1, 4\)"),
        ("mbn", {}, (1, C, 1, 1), "at least 2 values per channel and statistic in training, got 1"),
        ("bcn", {}, (1, C), "at least 2 values per channel and statistic in training, got 1"),
        ("brn", {}, (0, C, 2), "at least 2 values per channel and statistic in training, got 0"),
        ("bcn-estimate", {}, (0, C, 2), "at least 1 values per channel and statistic in training, got 0"),
        ("bcn-estimate", {"num_groups": C}, (8, C), "at least 2 values per sample and group, .* num_groups 4"),
        ("bcn", {"num_groups": C}, (8, C), "at least 2 values per sample and group, .* num_groups 4"),
        ("gn", {"num_groups": C}, (8, C, 1), "at least 2 values per sample and group, .* num_groups 4"),
        ("in", {}, (8, C), "at least 2 values per sample and group"),
        ("brn", {"virtual_batch_size": 2}, (5, C, 2), "multiple of virtual_batch_size = 2, got 5"),
        ("mbn", {"virtual_batch_size": 4}, (2, C, 2), "multiple of virtual_batch_size = 4, got 2"),
        ("bcn", {"virtual_batch_size": 2}, (3, C, 2), "multiple of virtual_batch_size = 2, got 3"),
        ("bcn-estimate", {"virtual_batch_size": 2}, (0, C, 2), "multiple of virtual_batch_size = 2, got 0"),
    ],
)
def test_too_few_values_change_nothing(path, method, options, shape, message):
    layer = randomize(each(method, **options))
    before = state(layer)
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(shape))
    assert_same(state(layer), before, 0)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        *((m, {"eps": eps}, "eps must be a number above 0") for m in METHODS for eps in (0, -1, float("nan"), "1")),
        *((m, {"virtual_batch_size": 0}, "virtual_batch_size must be .* got 0") for m in BATCH),
        *((m, {"momentum": 1.5}, r"momentum must be a number in \[0, 1\], got 1.5") for m in BATCH if m != "mbn"),
        *((m, {"num_groups": 3}, "num_groups must divide the 4 channels, got 3; the nearest divisor is 2")
          for m in ("gn", "bcn", "bcn-estimate")),
        *((m, {"num_groups": bad}, f"num_groups must be an integer of at least 1, got {bad}")
          for m in ("gn", "bcn", "bcn-estimate") for bad in (0, -2, 2.0, True)),
        *(("brn", {"r_max": bad}, "r_max must be a number of at least 1, got") for bad in (0.99, float("nan"), "3")),
        *(("brn", {"d_max": bad}, "d_max must be a number of at least 0, got") for bad in (-0.1, float("nan"), None)),
        *(("mbn", {"tau0": bad}, r"tau0 must be a number in \[0, 1\), got") for bad in (1, -0.1, float("nan"))),
        *(("mbn", {"lam": bad}, r"momentum_lambda must be a number in \[0, 1\), got")
          for bad in (1, -0.1, float("nan"), "0.5", True)),
        *(("mbn", {name: bad}, f"{name} must be an integer of at least 1, got {bad}")
          for name in ("batch_size", "ideal_batch_size") for bad in (0, -1, 2.5)),
    ],
)  # fmt: skip
def test_refused_arguments(method, options, message):
    with pytest.raises(ValueError, match=message):
        each(method, **options)


@pytest.mark.parametrize("method", METHODS)
def test_num_features_must_be_positive(method):
    for bad in (0, -4, 4.0):
        with pytest.raises(ValueError, match=f"num_features must be an integer of at least 1, got {bad}"):
            build(METHODS[method][0], ONE_EACH[method], bad)


@pytest.mark.parametrize(
    ("into", "out_of", "missing", "unexpected"),
    [
        ("brn", "bn", "running_std", "running_var"),
        ("bn", "brn", "running_var", "running_std"),
        ("mbn", "bn", "momentum_mean", None),
        ("bn", "mbn", None, "momentum_mean"),
        ("brn", "gn", "running_mean", None),
        ("gn", "bn", None, "running_mean"),
        ("bcn", "bn", "batch.running_mean", "running_mean"),
        ("bn", "bcn", "running_mean", "batch.running_mean"),
    ],
)
@pytest.mark.parametrize("assign", [False, True])
def test_the_state_of_another_method_is_refused_by_name(into, out_of, missing, unexpected, assign):
    layer, other = randomize(each(into)), randomize(each(out_of), seed=1)
    buffers = {name: value.clone() for name, value in layer.named_buffers()}
    with pytest.raises(RuntimeError) as refusal:
        layer.load_state_dict(other.state_dict(), assign=assign)
    for name in (missing, unexpected):
        assert name is None or f'"{name}"' in str(refusal.value)
    assert_same(dict(layer.named_buffers()), buffers, 0)


def test_a_partial_state_loads_when_that_is_asked_for():
    layer, other = randomize(each("brn")), randomize(each("bn"), seed=1)
    keys = layer.load_state_dict(other.state_dict(), strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == (["running_std"], ["running_var"])
    assert torch.equal(layer.running_mean, other.running_mean)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("method", BATCH)
def test_the_state_of_another_width_changes_no_buffer(method, strict):
    layer, other = randomize(each(method)), build(METHODS[method][0], ONE_EACH[method], 2 * C)
    other.apply(lambda module: [b.fill_(7) for b in module.buffers()])
    before = state(layer)
    with pytest.raises(RuntimeError, match="size mismatch for"):
        layer.load_state_dict(other.state_dict(), strict=strict)
    buffers = [name for name, _ in layer.named_buffers()]
    assert_same({name: state(layer)[name] for name in buffers}, {name: before[name] for name in buffers}, 0)


# Hard numbers: float32 (or half) against the formulas in float64 on the same values


def hard(method, x, tolerance, options=None, known=True):
    """Output and input gradient, with a history that knows the data where `known`."""
    layer, written = pair(method, ONE_EACH[method] if options is None else options)
    if known:
        values = {"_mean": x.double().mean((0, 2, 3)), "_var": x.double().var((0, 2, 3)).clamp(1e-10, 1e4)}
        values["_std"] = values["_var"].sqrt()
        for name, buffer in layer.named_buffers():
            if name[-5:] == "_mean" or name[-4:] in ("_var", "_std"):
                buffer.copy_(values["_mean"] if name[-5:] == "_mean" else values[name[-4:]])
    written.load_state_dict(layer.state_dict())
    layer = layer.float()
    written.load_state_dict(layer.state_dict())
    dy = normal(*x.shape, seed=1).to(x.dtype)
    got, expected = measure(layer, x, dy), measure(written, x.double(), dy.double())
    assert all(value.isfinite().all() for value in got.values())
    assert_same({k: got[k] for k in ("y", "dx")}, {k: expected[k] for k in ("y", "dx")}, tolerance)


FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_large_mean_small_deviation(path, method, memory_format):
    x = (normal(16, C, 8, 8) + 1e4).float().to(memory_format=memory_format)
    hard(method, x, 4e-3)  # float32 numbers are 2⁻¹⁰ apart there


@pytest.mark.parametrize("shape", [(32, C, 40, 40), (65536, C)], ids=str)
@pytest.mark.parametrize("method", BATCH)
def test_large_mean_of_many_values(path, method, shape):
    x = (normal(*shape) + 1e4).float()
    if x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    layer = each(method)
    expected = copy.deepcopy(layer).double()(x.double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-6, atol=2e-3)


@pytest.mark.parametrize("layer", [BatchRenorm(C), MomentumBatchNorm(C, 4)], ids=lambda layer: type(layer).__name__)
def test_a_layer_with_a_history_is_not_computed_twice_for_a_gradient(layer):
    """torch.utils.checkpoint would do so, from a history that has moved on, and get another gradient."""
    layer.momentum_lambda = 0.5  # Batch Renorm has no use for it
    x = normal(*SHAPES[2], dtype=torch.float32).requires_grad_()
    y = checkpoint(layer, x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="leave it outside of checkpointed blocks"):
        y.sum().backward()


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_constant_channels_give_the_bias(path, method, memory_format):
    # sums and means of 1024 of them are exact in float32; BCN's second half enlarges errors of the first once more
    values = torch.tensor([1.5, 0.0, 2.0, -1.0] if "bcn" in method else [1e4, 1.5, -777.75, 0.0])
    x = values.view(1, C, 1, 1).expand(16, C, 8, 8).contiguous(memory_format=memory_format)
    if method in ("gn", "ln"):  # not the channel but the group must be constant
        x = x[:, :1].expand_as(x).contiguous(memory_format=memory_format)
    layer = each(method)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(0.5 if name == "bias" else 1 if name.endswith("weight") else 0)
        for name, buffer in layer.named_buffers():
            if name.endswith("_mean"):
                buffer.copy_(x[0, :, 0, 0])
    got = measure(layer, x, normal(*x.shape, seed=1).float())
    # x and its mean, each times 1/√ε, are rounded before they cancel
    rounding = torch.finfo(torch.float32).eps * x.abs().amax() / layer.eps ** (1 if "bcn" in method else 0.5)
    torch.testing.assert_close(got["y"], torch.full_like(x, 0.5), rtol=0, atol=rounding.item())
    assert all(value.isfinite().all() for value in got.values())


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("outlier", [1e6, -1e12])
@pytest.mark.parametrize("method", METHODS)
def test_one_huge_outlier(path, method, outlier, memory_format):
    x = normal(16, C, 8, 8).float().to(memory_format=memory_format)
    x[-1, :, -1, -1] = outlier
    options = ONE_EACH[method] | (RENORM if method == "brn" else {})
    hard(method, x, 2e-5, options, known=False)


@pytest.mark.parametrize("method", METHODS)
def test_float16_at_the_edge_of_its_range(path, method):
    x = (normal(16, C, 8, 8).clamp(-3, 3) * 2e4).half()
    assert x.abs().max() > 5e4
    hard(method, x, 4 * torch.finfo(torch.float16).eps)


def test_group_layers_load_torchs_state_and_the_reverse():
    for ours, theirs in (
        (GroupNorm(C, 2), torch.nn.GroupNorm(2, C)),
        (LayerNorm(C), torch.nn.GroupNorm(1, C)),
        (InstanceNorm(C), torch.nn.InstanceNorm2d(C, affine=True)),
    ):
        ours.load_state_dict(randomize(theirs, 1).state_dict())
        theirs.load_state_dict(randomize(ours, 2).state_dict())
        x, dy = normal(2, C, 3, 3).float(), normal(2, C, 3, 3, seed=1).float()
        assert_same(measure(ours, x, dy), measure(theirs, x, dy), 1e-6)


def test_reprs_name_what_was_asked():
    assert repr(GroupNorm(4, 2)) == "GroupNorm(4, num_groups=2, eps=1e-05, affine=True)"
    text = repr(MomentumBatchNorm(4, 2, virtual_batch_size=2))
    assert text.startswith("MomentumBatchNorm(4, batch_size=2, ideal_batch_size=32, tau=0.99")
    assert text.endswith("momentum_lambda=0.0, eps=1e-05, affine=True, virtual_batch_size=2)")
    assert "virtual_batch_size" not in repr(BatchNorm(4))


@pytest.mark.parametrize("size", [2, 40])
@pytest.mark.parametrize("method", METHODS)
def test_another_dtype_is_refused_whatever_the_size_and_changes_nothing(method, size):
    layer = each(method)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match=r"x must have the layer's dtype torch\.float32, .* got torch\.float64"):
        layer(normal(8, C, size, size))
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
