"""Sums by torch's kernels over rows of channels, and when they are used."""

import copy

import pytest
import torch
from compare import assert_same, measure, normal, randomize, take
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from normlib.layers import BatchChannelNorm, BatchNorm, GroupNorm, MomentumBatchNorm, _rows
from normlib.layers._rows import _beside, as_image, moments, moments_of, rows_like, rows_of, sums

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [(2, 3), (1024, 2), (1026, 64), (5120, 3), (4096, 1), (2048, 64)]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("n", "channels"), SIZES, ids=str)
def test_sums_of_each_group(n, channels, groups):
    rows, dy = (normal(groups, n, channels, seed=s) for s in range(2))
    mean, var = rows.mean(1, keepdim=True), rows.var(1, correction=0, keepdim=True)
    expected = {"mean": mean, "var": var, "g": dy.sum(1, keepdim=True), "gx": (dy * (rows - mean)).sum(1, keepdim=True)}
    if groups == 1:
        rows, dy = rows[0], dy[0]
        expected = {name: value[0, 0] for name, value in expected.items()}
    found = moments(rows)
    assert_same(dict(zip(expected, (*found, *sums(dy, rows, found[0])), strict=True)), expected)


@pytest.mark.parametrize(("n", "channels"), SIZES, ids=str)
def test_rows_beside_each_other(n, channels):
    beside = _beside(n, channels)
    assert n % beside == 0
    assert 64 <= n // beside <= 1024 or n < 64


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (2, 4, 3, 5), (2, 4, 2, 3, 2)], ids=str)
def test_rows_and_back(shape):
    x = normal(*shape)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    rows = rows_of(x, 1)
    assert rows.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert torch.equal(as_image(rows, x), x)
    assert torch.equal(rows_like(x.contiguous(), rows), rows)


@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 3, 5)], ids=str)
def test_a_gradient_that_is_one_value(monkeypatch, shape):
    """As behind y.sum(): a view that repeats a value, where the kernels expect one after another."""
    x, results = normal(*shape).movedim(1, -1).contiguous().movedim(-1, 1), []
    for path in ("rows", "fused"):
        take(monkeypatch, path)
        layer = randomize(BatchNorm(4)).double()
        dy = torch.tensor(0.5, dtype=torch.float64).expand(shape)
        results.append(measure(layer, x, dy))
        monkeypatch.undo()
    assert_same(*results)


def test_where_there_are_no_rows():
    x = normal(2, 4, 3, 5)
    assert rows_of(x, 1) is None
    last = x.to(memory_format=torch.channels_last)
    assert rows_of(last, 2) is None  # groups too small for a call each
    assert rows_of(torch.ones(1, 4), 1) is None
    assert rows_of(torch.ones(1031, 4), 1) is None  # a prime
    assert rows_of(last[:, :, :, 1:-1], 1) is None
    assert rows_of(last.to(torch.bfloat16), 1).dtype == torch.float32


@pytest.mark.parametrize(("mean", "read"), [(0, True), (20, True), (50, False)])
def test_a_far_mean_is_left_to_centering(mean, read):
    x = (normal(512, 4) + mean).float()
    assert (moments_of(x, 1) is not None) is read
    assert moments_of(torch.full((8, 4), 1.0), 1) is None  # a constant is infinitely far


GRADIENTS = {
    "channels-last": lambda dy: dy,
    "contiguous": lambda dy: dy.contiguous(),
    "of a mean over positions": lambda dy: dy[:, :, :1, :1].expand(dy.shape),
}


@pytest.mark.parametrize("mean", [0, 20, 1e4])
@pytest.mark.parametrize("order", GRADIENTS)
@pytest.mark.parametrize(
    "layer",
    [BatchNorm(64), MomentumBatchNorm(64, 4), BatchChannelNorm(64, 8), BatchNorm(64, virtual_batch_size=2)],
    ids=lambda layer: repr(layer).split("(")[0],
)
def test_large_channels_last_inputs(monkeypatch, layer, order, mean):
    """What training a convolutional net meets: both ways are exact."""
    layer = randomize(layer)
    if isinstance(layer, MomentumBatchNorm):
        layer.momentum_lambda = 0.5
        layer.momentum_mean.fill_(mean)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    x, dy = (normal(4, 64, 72, 72, seed=s).to(memory_format=torch.channels_last) for s in range(2))
    x, dy = x + mean, GRADIENTS[order](dy)
    results = []
    for path, dtype in (("rows", torch.float32), ("fused", torch.float64)):
        take(monkeypatch, path)
        layer.load_state_dict(state)
        inner, own = x.float().to(dtype).requires_grad_(), layer.to(dtype)
        y = own(inner)
        assert y.is_contiguous(memory_format=torch.channels_last)
        names = ["y", "dx", *(n for n, _ in own.named_parameters())]
        gradients = torch.autograd.grad(y, [inner, *own.parameters()], dy.to(dtype))
        results.append(dict(zip(names, (y.detach(), *gradients), strict=True)))
        monkeypatch.undo()
    got, expected = results
    if order == "of a mean over positions":  # for γ it cancels but for the mean's own rounding, however it is summed
        got, expected = ({name: result[name] for name in ("y", "dx")} for result in results)
    assert_same(got, expected, 3e-5 if mean < 1e4 else 4e-3)


LARGE = (2, 8, 300, 300)
LAYERS = [BatchNorm(8), MomentumBatchNorm(8, 4), GroupNorm(8, 1), BatchChannelNorm(8, 2)]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_derivatives_forward_in_a_large_channels_last_input(layer):
    """torch's kernels know them; ours and native_group_norm's for this memory order do not."""
    if isinstance(layer, BatchChannelNorm):
        layer.eval()  # in training its two halves at once are a function without one
    layer = copy.deepcopy(layer).double()
    x, step = (normal(*LARGE, seed=s).to(memory_format=torch.channels_last) for s in range(2))
    with forward_ad.dual_level():
        moved = forward_ad.unpack_dual(copy.deepcopy(layer)(forward_ad.make_dual(x, step))).tangent
    with torch.no_grad():
        near = [copy.deepcopy(layer)(x + h * step) for h in (1e-6, -1e-6)]
    torch.testing.assert_close(moved, (near[0] - near[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_a_backward_pass_where_x_is_no_longer_plain(monkeypatch):
    """As in compiled autograd, which traces it behind an eager forward pass."""
    take(monkeypatch, "rows")
    layer, x = BatchNorm(4).double(), normal(4, 4, 3, 2).to(memory_format=torch.channels_last)
    dy, found = normal(4, 4, 3, 2, seed=1), []
    for traced in (False, True):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        if traced:
            monkeypatch.setattr(_rows, "plain", lambda x: False)
        y.backward(dy)
        found.append({"dx": leaf.grad})
    assert_same(*found)


@pytest.mark.parametrize("layer", [MomentumBatchNorm(64, 4), BatchChannelNorm(64, 8)], ids=lambda x: type(x).__name__)
def test_a_hook_may_change_the_order_of_what_is_saved(layer):
    if isinstance(layer, MomentumBatchNorm):
        layer.momentum_lambda = 0.5
    x = normal(4, 64, 72, 72).to(memory_format=torch.channels_last)
    results = []
    for keep in (lambda t: t, lambda t: t.contiguous()):
        leaf, own = x.clone().requires_grad_(), copy.deepcopy(layer).double()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            y = own(leaf)
        results.append({"dx": torch.autograd.grad(y, leaf, normal(*x.shape, seed=1))[0]})
    assert_same(*results)


@pytest.mark.parametrize("layer", [MomentumBatchNorm(4, 4), BatchNorm(4)], ids=lambda x: type(x).__name__)
def test_a_traced_layer_decides_nothing_by_value(monkeypatch, layer):
    """A proxy has none, though its type is Tensor."""
    take(monkeypatch, "rows")
    if isinstance(layer, MomentumBatchNorm):
        layer.momentum_lambda = 0.5
    x = normal(6, 4)
    assert make_fx(copy.deepcopy(layer).double())(x)(x).shape == x.shape
