"""Public implementations: Keras's Batch Renorm and timm's standardized convolution. torch's own layers are beside each
layer's tests."""

import importlib.util
import math

import pytest
import torch
from compare import PATHS, assert_same, measure, normal, randomize, take

from normlib.layers import BatchRenorm, WSConv2d

pytestmark = pytest.mark.usefixtures("one_thread")
C = 4


def installed(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))  # it would write in the home directory
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # its tensors go to the first device it sees
        import keras

        yield keras


@installed("keras")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("limits", [(1.0, 0.0), (1.5, 0.5), (math.inf, math.inf)], ids=str)
@pytest.mark.parametrize("alpha", [0.01, 0.3])
def test_batch_renorm_of_keras(monkeypatch, keras, path, limits, alpha):
    """ε = 1e-3 there by default; α = 1 − renorm_momentum; its evaluation averages with `momentum`, here the same."""
    take(monkeypatch, path)
    r_max, d_max = limits
    clipping = {} if r_max == math.inf else {"rmax": r_max, "rmin": 1 / r_max, "dmax": d_max}
    options = {"renorm": True, "renorm_clipping": clipping, "momentum": 1 - alpha, "renorm_momentum": 1 - alpha}
    theirs = keras.layers.BatchNormalization(axis=1, epsilon=1e-3, dtype="float64", **options)
    theirs.build((None, C, 3, 2))
    ours = randomize(BatchRenorm(C, eps=1e-3, momentum=alpha, r_max=r_max, d_max=d_max)).double()
    theirs.gamma.assign(ours.weight.detach()), theirs.beta.assign(ours.bias.detach())
    for mean, std in ((theirs.renorm_mean, theirs.renorm_stddev), (theirs.moving_mean, theirs.moving_stddev)):
        mean.assign(ours.running_mean), std.assign(ours.running_std)

    for seed in range(3):
        x, dy = 2 * normal(4, C, 3, 2, seed=seed) + 0.3, normal(4, C, 3, 2, seed=seed + 10)
        got = measure(ours, x, dy)
        x.requires_grad_()
        y = theirs(x, training=True)
        parameters = [theirs.gamma.value, theirs.beta.value]
        dx, dweight, dbias = torch.autograd.grad(y, [x, *parameters], dy)
        expected = {
            "y": y.detach(),
            "dx": dx,
            "dweight": dweight,
            "dbias": dbias,
            "running_mean": theirs.renorm_mean.value.detach(),
            "running_std": theirs.renorm_stddev.value.detach(),
        }
        # Keras computes 1 − momentum in float32
        assert_same({name: got[name] for name in expected}, expected, 1e-6)
    assert_same({"eval": ours.eval()(x).detach()}, {"eval": theirs(x, training=False).detach()}, 1e-6)


@installed("timm")
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": True}, {"stride": 2, "groups": 2}, {"kernel_size": 1, "padding": 0}, {"dilation": 2}],
    ids=str,
)
def test_standardized_convolution_of_timm(options):
    """timm: ε = 1e-6, no bias unless asked, padding that keeps the size unless given; biased variance as here."""
    from timm.layers import StdConv2d

    options = {"kernel_size": 3} | options
    theirs = StdConv2d(4, 6, **options).double()
    same = {"padding": options.get("dilation", 1)} | options
    ours = WSConv2d(4, 6, **({"bias": False} | same), ws_eps=1e-6).double()
    assert theirs.eps == 1e-6
    assert (theirs.bias is None) == (not options.get("bias", False))
    ours.load_state_dict(theirs.state_dict())
    x = normal(2, 4, 8, 8)
    y = theirs(x)
    dy = normal(*y.shape, seed=1)
    assert_same(measure(ours, x, dy), measure(theirs, x, dy), 1e-10)
    different = WSConv2d(4, 6, **({"bias": False} | same), ws_eps=1e-2).double()
    different.load_state_dict(theirs.state_dict())
    assert (different(x) - y).abs().max() > 1e-4
