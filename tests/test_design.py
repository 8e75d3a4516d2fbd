"""The design space without a browser: its words agree with the layers, and every rendering says the same."""

import base64
import html
import io
import itertools
import json
import re

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from normlib import design, interactive, layers
from normlib.design import CHOICES, FLOWS, SETS, SHAPES, SOURCES, DesignSpace, named, setting

ALL = list(itertools.product(*CHOICES.values()))
N, C = design.SAMPLES, design.CHANNELS


@pytest.fixture(scope="module")
def figure():
    return DesignSpace("group", "weights", "none", caption="A <caption>.")


@pytest.fixture(scope="module")
def data(figure):
    text = figure._repr_mimebundle_()["text/html"]
    return json.loads(re.search(r'<script type="application/json" class="nl-data">(.*?)</script>', text)[1])


# ---- what is where -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "layer"),
    [
        ("channel", layers.BatchNorm(C)),
        ("virtual", layers.BatchNorm(C, virtual_batch_size=SHAPES["virtual"][0])),
        ("instance", layers.InstanceNorm(C)),
        ("group", layers.GroupNorm(C, C // SHAPES["group"][1])),
        ("sample", layers.LayerNorm(C)),
        ("sample", layers.weight_standardize),
        (
            "block",
            lambda x: F.batch_norm(x.reshape(N, C // SHAPES["block"][1], -1), None, None, training=True).view(x.shape),
        ),
    ],
    ids=["channel", "virtual", "instance", "group", "sample", "weights", "block"],
)
def test_the_drawing_fills_the_support_of_the_layers_gradient(sets, layer):
    torch.manual_seed(0)
    x = torch.randn(N, C, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, 0, 1], x)
    samples, channels = SHAPES[sets]
    expected = torch.zeros(N, C, 3, dtype=torch.bool)
    expected[:samples, :channels] = True
    assert torch.equal(gradient != 0, expected)
    assert design._lit(sets) == f"M0 0H{channels * design.CELL}V{samples * design.CELL}H0Z"


FORMULAS = {  # the backward formulas of the text, over the history's share w (λ, or 1 − ρ)
    "∂L/∂x = g/s": lambda g, mean, v: g / v["s"],
    "∂L/∂x = (g − ⟨g⟩ − x̂ ⟨g x̂⟩)/s": lambda g, mean, v: (g - mean(g) - v["x_hat"] * mean(g * v["x_hat"])) / v["s"],
    "∂L/∂x = (g − (1 − λ) ⟨g⟩ − (1 − λ) ((x − μ_B)/s) ⟨g x̂⟩)/s": lambda g, mean, v: (
        (g - 0.25 * mean(g) - 0.25 * v["from_b"] / v["s"] * mean(g * v["x_hat"])) / v["s"]
    ),
    "∂L/∂x = (g − ρ ⟨g⟩ − ρ ((x − μ_h)/s) ⟨g x̂⟩)/s": lambda g, mean, v: (
        (g - 0.25 * mean(g) - 0.25 * v["from_h"] / v["s"] * mean(g * v["x_hat"])) / v["s"]
    ),
    "∂L/∂x = (g − ⟨g⟩ − x̃ ⟨g x̃⟩)/s, x̃ = (x − μ_B)/√(σ_B² + ε)": lambda g, mean, v: (
        (g - mean(g) - v["tilde"] * mean(g * v["tilde"])) / v["s"]
    ),
}


@pytest.mark.parametrize(
    ("source", "flow"), [*itertools.product(["batch", "blend", "estimate", "history"], FLOWS)], ids=str
)
def test_each_backward_formula_is_the_gradient(source, flow):
    torch.manual_seed(1)
    x = (2 * torch.randn(8, 3, dtype=torch.float64) + 1).requires_grad_()
    g, old_mean, old_var = (torch.randn(s, 3, dtype=torch.float64) for s in (8, 1, 1))
    old_var = old_var.square() + 1

    def mean(t):
        return t.mean(0, keepdim=True)

    mu_b = mean(x)
    var_b = mean((x - mu_b).square())
    old_share = {"batch": 0.0, "history": 1.0}.get(source, 0.75)
    square = mean((x - old_mean).square()) if source == "estimate" else var_b
    mu, s = torch.lerp(mu_b, old_mean, old_share), (torch.lerp(square, old_var, old_share) + 1e-5).sqrt()
    value = (x - mu) / s
    tilde = (x - mu_b) / (var_b + 1e-5).sqrt()
    if flow == "none":
        y = (x - mu.detach()) / s.detach()
    elif flow == "share":
        y = value
    else:
        y = tilde * ((var_b + 1e-5).sqrt() / s).detach() + ((mu_b - mu) / s).detach()
        torch.testing.assert_close(y, value)
    (expected,) = torch.autograd.grad(y, x, g)
    known = {"s": s, "x_hat": value, "tilde": tilde, "from_b": x - mu_b, "from_h": x - old_mean}
    known = {name: tensor.detach() for name, tensor in known.items()}
    formula = FORMULAS[setting("channel", source, flow).backward]
    torch.testing.assert_close(formula(g, mean, known), expected, rtol=0, atol=1e-12)


def test_settings_that_are_one_are_called_one():
    for sets in SETS:
        for source in ("batch", "weights"):
            assert setting(sets, source, "whole") == setting(sets, source, "share")
        a, b = setting(sets, "history", "share"), setting(sets, "history", "none")
        assert a == b


def test_every_setting_says_what_it_is():
    for key in ALL:
        what = setting(*key)
        assert what.kind in ("method", "mistake", "unnamed", "void")
        assert what.sentence.endswith(".")
        assert 1 <= len(what.short) <= 8
        assert (key in named()) == (what.kind == "method")
        if what.kind == "void":
            assert what.name == "No method"
    assert {setting(*key).kind for key in ALL} == {"method", "mistake", "unnamed", "void"}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("channel", "batch", "share"), "Batch Norm"),
        (("channel", "blend", "share"), "Momentum Batch Norm"),
        (("virtual", "history", "whole"), "Batch Renorm without bounds, virtual batches"),
        (("channel", "history", "none"), "Frozen Batch Norm"),
        (("sample", "weights", "share"), "Weight Standardization"),
        (("channel", "batch", "none"), "Batch Norm without its gradient"),
        (("group", "history", "share"), "No method"),
        (("instance", "history", "share"), "At evaluation only, as far as we know"),
        (("instance", "history", "whole"), "Not published in this form, as far as we know"),
        (("block", "history", "none"), "At evaluation only, as far as we know"),
        (("block", "blend", "share"), "Not published, as far as we know"),
    ],
)
def test_names(key, name):
    assert setting(*key).name == name


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("chanel", "batch", "share"), "sets must be one of channel, virtual, .*, got 'chanel'"),
        (("channel", "bach", "share"), "source must be one of batch, blend, .*, got 'bach'"),
        (("channel", "batch", None), "flow must be one of whole, share, none, got None"),
    ],
)
def test_a_wrong_choice_is_named(key, message):
    with pytest.raises(ValueError, match=message):
        setting(*key)
    with pytest.raises(ValueError, match=message):
        DesignSpace(*key)


# ---- the renderings ----------------------------------------------------------------------------------------------


def test_the_html_holds_every_setting(figure, data):
    text = figure._repr_mimebundle_()["text/html"]
    assert len(data["settings"]) == len(ALL)
    for key, stored in zip(ALL, data["settings"], strict=True):
        what = setting(*key)
        assert stored == [what.kind, what.short, what.name, what.forward, what.backward, what.sentence]
    assert data["lit"] == [design._lit(sets) for sets in SETS]
    assert data["axes"][list(SOURCES).index("weights")] == ["filters", "input channels"]
    assert html.escape(setting("group", "weights", "none").sentence) in text
    assert "A &lt;caption&gt;." in text
    still = text[text.index('<div class="nl-still"') :]
    assert still.count("<tr>") == 1 + len(named())
    label = html.unescape(re.match(r'[^>]* aria-label="([^"]*)"', still)[1])
    for sets, words in SETS.items():
        (methods,) = re.findall(rf"{words}: ([^.]*)\.", label, re.IGNORECASE)
        assert set(methods.split(", ")) == {setting(*key).short for key in named() if key[0] == sets}


def test_two_figures_are_the_same_bytes_and_ids_come_from_the_content(figure):
    again = DesignSpace("group", "weights", "none", caption="A <caption>.")
    assert again._repr_mimebundle_() == figure._repr_mimebundle_()
    identity = re.compile(r'<figure [^>]*id="([^"]+)"')
    other = DesignSpace()._repr_mimebundle_()["text/html"]
    assert identity.search(other)[1] != identity.search(figure._repr_mimebundle_()["text/html"])[1]


def test_the_still_picture_is_opaque_and_the_text_names_the_first_setting(figure):
    bundle = figure._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGBA")
    assert image.getextrema()[3] == (255, 255)
    assert len(image.getcolors(1 << 20)) > 50
    assert bundle["text/plain"] == f"DesignSpace: {figure.title}. Shown first: No method"


def test_with_a_kernel_the_widget_follows_its_controls(monkeypatch):
    monkeypatch.setattr(interactive, "kernel_wants_widgets", lambda: True)
    figure = DesignSpace()
    _, row, shown = figure._widget.children
    sets, source, flow = (box.children[1] for box in row.children)
    assert "<b>Batch Norm</b>" in shown.value
    source.value, flow.value = "history", "whole"
    assert "<b>Batch Renorm without bounds</b>" in shown.value
    sets.value = "virtual"
    assert html.escape(setting("virtual", "history", "whole").backward) in shown.value
    assert figure._svg("virtual", "history") in shown.value
