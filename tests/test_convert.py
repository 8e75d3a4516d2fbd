"""Normalization by name: the factory for `norm_layer=`, and `set_epoch`."""

import numpy as np
import pytest
import torch
from torch import nn

from normlib import layers
from normlib.convert import _METHODS, convert_norm, norm_factory, set_epoch
from normlib.layers import BatchNorm


def test_bn_builds_the_layer_with_its_options():
    layer = norm_factory("bn", virtual_batch_size=4, momentum=0.3)(7)
    assert type(layer) is BatchNorm
    assert (layer.num_features, layer.virtual_batch_size, layer.momentum) == (7, 4, 0.3)
    assert norm_factory("bn")(7) is not norm_factory("bn")(7)


def test_none_is_no_layer():
    assert norm_factory("none") is None


def test_every_layer_has_a_name_and_every_name_is_described():
    kinds = {getattr(layers, name) for name in layers.__all__}
    methods = {kind for kind in kinds if isinstance(kind, type)} - {layers.WSConv2d}  # that is the suffix "+ws"
    missing = methods - set(_METHODS.values())
    assert not missing, f"normlib/convert.py: _METHODS has no name for {sorted(kind.__name__ for kind in missing)}"
    described = [name for name in _METHODS if f'"{name}"' in norm_factory.__doc__]
    assert described == list(_METHODS), "norm_factory: its docstring does not have every name"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bnn", "name must be one of bn, .*none, got 'bnn'; did you mean 'bn'"),
        ("nome", "got 'nome'; did you mean 'none'"),
        ("", "got ''$"),
        (None, "got None"),
        ("BN", "got 'BN'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        norm_factory(name)


def test_none_takes_no_options():
    with pytest.raises(ValueError, match='"none" takes no options, got eps'):
        norm_factory("none", eps=1e-3)


def test_bad_options_are_refused_by_the_layer_at_once():
    with pytest.raises(ValueError, match=r"eps must be .* got -1"):
        norm_factory("bn", eps=-1)
    with pytest.raises(TypeError, match="num_groups"):
        norm_factory("bn", num_groups=2)


class Scheduled(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = []

    def set_epoch(self, epoch, total_epochs):
        self.calls.append((epoch, total_epochs))


def test_set_epoch_reaches_every_scheduled_module():
    outer, inner = Scheduled(), Scheduled()
    outer.inner = inner
    model = nn.Sequential(nn.Linear(2, 2), outer, BatchNorm(2))
    set_epoch(model, 3, 10)
    assert outer.calls == inner.calls == [(3, 10)]
    assert model.train()[0](torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("affine", [True, False])
def test_a_conversion_keeps_each_layers_affine_and_refuses_another(affine):
    model = nn.Sequential(nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=f"affine must be left out: .* got affine={affine}"):
        convert_norm(model, "bn", affine=affine)
    assert type(model[0]) is nn.BatchNorm1d


def test_integers_of_numpy_are_integers():
    assert norm_factory("gn", num_groups=np.int64(2))(4).num_groups == 2
    assert norm_factory("bn", virtual_batch_size=np.int64(2))(4)(torch.rand(4, 4)).shape == (4, 4)
    with pytest.raises(ValueError, match="virtual_batch_size must be an integer"):
        norm_factory("bn", virtual_batch_size=np.float64(2))
