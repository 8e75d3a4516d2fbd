"""What every interactive figure does alike: which renderings it gives, where, and that they repeat."""

import re
import sys
from types import SimpleNamespace

import pytest

from normlib.cube import AxisCube
from normlib.design import DesignSpace
from normlib.explorer import Explorer
from normlib.guide import Guide
from normlib.interactive import KINDS, embedded, radio_buttons, range_input
from normlib.quiz import Quiz

VIEW = "application/vnd.jupyter.widget-view+json"


def explorer(caption=None):
    return Explorer(
        lambda a: {"line": ([0, 1], [a, 2 * a])},
        sliders={"a": [1, 2]},
        title="A line",
        x_label="x",
        y_label="y",
        alt="A line.",
        caption=caption,
    )


FIGURES = {
    "explorer": explorer,
    "cube": lambda caption=None: AxisCube((2, 4, 2), groups=2, m=1, caption=caption),
    "design": lambda caption=None: DesignSpace(caption=caption),
    "guide": lambda caption=None: Guide(caption=caption),
    "quiz": lambda: Quiz("03_noise_and_batch_size"),  # its questions say all
}


@pytest.fixture(params=KINDS)
def make(request):
    return FIGURES[request.param]


@pytest.mark.parametrize(("variable", "wanted"), [("", True), ("1", False)])
def test_a_kernel_gets_a_widget_unless_the_build_forbids_it(make, monkeypatch, variable, wanted):
    import IPython

    assert VIEW not in make()._repr_mimebundle_()
    monkeypatch.setenv("NORMLIB_STATIC", variable)
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    figure = make()
    view = figure._repr_mimebundle_().get(VIEW)
    if wanted:
        assert view == {"version_major": 2, "version_minor": 0, "model_id": figure._widget.model_id}
    else:
        assert view is None


def test_colab_gets_no_html(make, monkeypatch):
    assert "text/html" in make()._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert "text/html" not in make()._repr_mimebundle_()


@pytest.mark.parametrize("make", [FIGURES[kind] for kind in KINDS if kind != "quiz"])
def test_a_caption_is_text_in_the_page_and_in_the_widget(make):
    figure = make("1 < 2 & 3")
    assert "<figcaption>1 &lt; 2 &amp; 3</figcaption>" in figure._repr_mimebundle_()["text/html"]
    assert figure.widget().children[-1].value == "<small>1 &lt; 2 &amp; 3</small>"
    assert "figcaption" not in make()._repr_mimebundle_()["text/html"]


def test_ids_come_from_the_content(make):
    first, again = (make()._repr_mimebundle_()["text/html"] for _ in "ab")
    assert first == again
    assert len(set(re.findall(r' id="([^"]+)"', first))) == len(re.findall(r' id="([^"]+)"', first))
    assert 'class="nl-interactive nl-' in first  # what dresses it, and tells a page which scripts it needs


def test_data_cannot_close_their_script():
    assert embedded({"a": "</script>"}) == '{"a":"\\u003c/script>"}'


def test_radio_buttons_are_numbered_and_escaped():
    text = radio_buttons("u", "A & B", {"x": "<x>", "y": "y"}, "y")
    assert text.startswith("<fieldset><legend>A &amp; B</legend>")
    assert re.findall(r'value="(\d)" autocomplete="off"( checked)?> ([^<]+)', text) == [
        ("0", "", "&lt;x&gt;"),
        ("1", " checked", "y"),
    ]


def test_a_range_input_says_its_value_and_labels_what_fits():
    text = range_input("u", "batch size", ["1", "2", "4"], 1)
    assert 'aria-valuetext="batch size 2"' in text
    assert re.findall(r"--nl-at:([\d.]+)\">([^<]*)<", text) == [("0", "1"), ("0.5", "2"), ("1", "4")]
    crowded = range_input("u", "rate", [f"{i / 8:.3f}" for i in range(9)], 0)
    assert re.findall(r"--nl-at:[\d.]+\">([^<]*)<", crowded) == ["0.000", *[""] * 7, "1.000"]
    assert "data-values" not in crowded
    assert 'data-values="1 2"' in range_input("u", "m", ["1", "2"], 0, "m")
