"""The axis cube without a browser: what lights up is what the layers average, and every rendering says the same."""

import base64
import html
import io
import itertools
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from normlib import cube, interactive, layers
from normlib.cube import METHODS, OPTIONS, AxisCube, index_set

SHAPE = (4, 6, 4)
LAYERS = [
    ("bn", {}, layers.BatchNorm(6)),
    ("virtual", {"m": 1}, layers.BatchNorm(6, virtual_batch_size=1)),
    ("virtual", {"m": 2}, layers.BatchNorm(6, virtual_batch_size=2)),
    ("virtual", {"m": 4}, layers.BatchNorm(6, virtual_batch_size=4)),
    ("ln", {}, layers.LayerNorm(6)),
    ("in", {}, layers.InstanceNorm(6)),
    *(("gn", {"groups": G}, layers.GroupNorm(6, G)) for G in (1, 2, 3, 6)),
]


def settings(figure):
    for method in METHODS:
        options = figure.values.get(OPTIONS.get(method), [None])
        for option, sample, channel in itertools.product(options, figure.values["sample"], figure.values["channel"]):
            extra = {OPTIONS[method]: option} if method in OPTIONS else {}
            yield {"method": method, "sample": sample, "channel": channel, **extra}


@pytest.fixture(scope="module")
def figure():
    return AxisCube(SHAPE, groups=3, sample=2, channel=4, caption="A <caption>.")


# ---- the sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "option", "layer"), LAYERS, ids=lambda v: str(v)[:12])
def test_the_set_is_the_support_of_the_layers_gradient(method, option, layer):
    torch.manual_seed(0)
    x = torch.randn(4, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    y = layer.double()(x)
    sets = set()
    for n, c in itertools.product(range(4), range(6)):
        (gradient,) = torch.autograd.grad(y[n, c, 1, 0], x, retain_graph=True)
        lit = index_set(method, n, c, shape=SHAPE, **option)
        expected = torch.zeros(4, 6, 2, 2, dtype=torch.bool)
        expected[lit.samples.start : lit.samples.stop, lit.channels.start : lit.channels.stop] = True
        assert torch.equal(gradient != 0, expected)
        assert lit.n == int(expected.sum())
        sets.add(lit)
    assert len(sets) == lit.count
    assert sum(s.n for s in sets) == x.numel()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bm", 0, 0, {}), "method must be one of bn, virtual, ln, in, gn, got 'bm'"),
        (("bn", 4, 0, {}), "sample must be between 0 and 3, got 4"),
        (("bn", 0, -1, {}), "channel must be between 0 and 5, got -1"),
        (("virtual", 0, 0, {}), r"m must be one of \[1, 2, 4\] for method 'virtual', got None"),
        (("virtual", 0, 0, {"m": 3}), r"m must be one of \[1, 2, 4\] for method 'virtual', got 3"),
        (("gn", 0, 0, {"groups": 4}), r"groups must be one of \[1, 2, 3, 6\] for method 'gn', got 4"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    method, sample, channel, options = arguments
    with pytest.raises(ValueError, match=message):
        index_set(method, sample, channel, shape=SHAPE, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (1, 6, 4)}, r"shape must be \(N, C, H·W\) with N and C of 2 or more, got \(1, 6, 4\)"),
        ({"method": "sn"}, "method must be one of"),
        ({"m": 3}, r"m must be one of \[1, 2, 4\], got 3"),
        ({"groups": 4}, r"groups must be one of \[1, 2, 3, 6\], got 4"),
        ({"sample": 0}, r"sample must be one of \[1, 2, 3, 4\], got 0"),
        ({"channel": 7}, r"channel must be one of \[1, 2, 3, 4, 5, 6\], got 7"),
    ],
)
def test_a_wrong_start_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        AxisCube(**({"shape": SHAPE, "groups": 3} | changes))


# ---- in words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            {"method": "gn", "groups": 4, "sample": 2, "channel": 1},
            "Group Norm, G = 4: the values in channels 1 and 2 of sample 2 share one mean and one variance, "
            "n = 1 · 2 · 16 = 32 values. The tensor has 24 such sets.",
        ),
        (
            {"method": "gn", "groups": 2, "sample": 1, "channel": 8},
            "Group Norm, G = 2: the values in channels 5 to 8 of sample 1 share one mean and one variance, "
            "n = 1 · 4 · 16 = 64 values. The tensor has 12 such sets.",
        ),
        (
            {"method": "bn", "sample": 5, "channel": 3},
            "Batch Norm: the values in channel 3 of all 6 samples share one mean and one variance, "
            "n = 6 · 1 · 16 = 96 values. The tensor has 8 such sets.",
        ),
        (
            {"method": "virtual", "m": 3, "sample": 5, "channel": 3},
            "Batch Norm, virtual batches of m = 3: the values in channel 3 of samples 4 to 6 share one mean and one "
            "variance, n = 3 · 1 · 16 = 48 values. The tensor has 16 such sets.",
        ),
        (
            {"method": "ln", "sample": 6, "channel": 3},
            "Layer Norm: the values in all 8 channels of sample 6 share one mean and one variance, "
            "n = 1 · 8 · 16 = 128 values. The tensor has 6 such sets.",
        ),
    ],
)
def test_the_sentence_says_what_lights_up(setting, sentence):
    assert AxisCube().readout(**setting) == sentence


# ---- the renderings ----------------------------------------------------------------------------------------------


def test_a_block_covers_the_cells_of_its_set_on_the_top(figure):
    """The area of the top face is that of as many cells; a face is solid exactly where it lies on the surface."""
    cell = 2 * cube.ACROSS * cube.RISE
    for setting in settings(figure):
        lit = figure.at(**setting)
        faces = {name: (outside, np.array(points)) for name, _, outside, points in figure._faces(lit)}
        x, y = faces["top"][1].T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert area == cell * len(lit.samples) * len(lit.channels)
        assert faces["left"][0] == (0 in lit.samples)
        assert faces["right"][0] == (SHAPE[1] - 1 in lit.channels)
        left, top, width, height = figure._box()
        for _, points in faces.values():
            assert (points >= (left, top)).all()
            assert (points <= (left + width, top + height)).all()


def test_the_html_holds_every_setting(figure):
    text = figure._repr_mimebundle_()["text/html"]
    data = json.loads(re.search(r'<script type="application/json" class="nl-data">(.*?)</script>', text)[1])
    places = list(itertools.product(figure.values["sample"], figure.values["channel"]))
    for setting in settings(figure):
        method = data["methods"][list(METHODS).index(setting["method"])]
        option = OPTIONS.get(setting["method"])
        number = figure.values[option].index(setting[option]) if option else 0
        variant = data["variants"][method["variants"][number]]
        place = places.index((setting["sample"], setting["channel"]))
        block, sentence = data["sets"][variant["sets"][place]]
        drawing = figure._svg(**setting)
        assert sentence == figure.readout(**setting)
        assert f">{data['blocks'][block]}</g>" in drawing
        assert f'd="{variant["cuts"]}"' in drawing
        x, y = data["dots"][place]
        assert f'cx="{x:g}" cy="{y:g}"' in drawing
    assert html.escape(figure.readout()) in text
    assert "A &lt;caption&gt;." in text


def test_two_cubes_are_the_same_bytes_and_ids_come_from_the_content(figure):
    again = AxisCube(SHAPE, groups=3, sample=2, channel=4, caption="A <caption>.")
    assert again._repr_mimebundle_() == figure._repr_mimebundle_()
    other = AxisCube(SHAPE, groups=2)._repr_mimebundle_()["text/html"]
    identity = re.compile(r'<figure [^>]*id="([^"]+)"')
    assert identity.search(other)[1] != identity.search(figure._repr_mimebundle_()["text/html"])[1]


def test_the_still_picture_is_opaque_and_the_text_says_what_it_shows(figure):
    bundle = figure._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGBA")
    assert image.getextrema()[3] == (255, 255)
    assert len(image.getcolors(1 << 20)) > 50
    assert bundle["text/plain"] == f"AxisCube: {figure.title}. {figure.readout()}"


def test_with_a_kernel_the_widget_follows_its_controls(monkeypatch):
    monkeypatch.setattr(interactive, "kernel_wants_widgets", lambda: True)
    figure = AxisCube()
    _, method, m, groups, sample, channel, drawing = figure._widget.children
    assert html.escape(figure.readout()) in drawing.value
    assert m.disabled
    assert not groups.disabled
    method.value, m.value, sample.value, channel.value = "virtual", 3, 4, 8
    now = {"method": "virtual", "m": 3, "sample": 4, "channel": 8}
    assert f'<p role="status">{html.escape(figure.readout(**now))}</p>' in drawing.value
    assert figure._svg(**now) in drawing.value
    assert groups.disabled
    assert not m.disabled
