"""Inline drawings: lighter than matplotlib's, and the same."""

import io
import re
from xml.etree import ElementTree

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from normlib import svg

HREF = "{http://www.w3.org/1999/xlink}href"
ROOT = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@pytest.fixture
def drawing():
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "test"}):
        figure = Figure()
        left, right = figure.subplots(1, 2)
        left.plot([1, 2, 3], "o-", label="mean")
        left.legend()
        left.set_ylabel("value")
        right.scatter(range(5), range(5), s=range(5))
        right.fill_between(range(5), range(5), alpha=0.2)
        right.tick_params("x", rotation=30)
        return svg.save(figure, "svg")


def drawn(text):
    """Every element that shows, in order, with its numbers and those of the groups around it."""
    found = []

    def visit(element, inherited):
        tag = element.tag.rpartition("}")[2]
        own = [v for k, v in element.attrib.items() if k not in ("id", "style", "clip-path", HREF)]  # these are names
        if tag == "g":
            inherited = [*inherited, *own]
        elif tag in ("path", "use", "text", "rect"):
            turned = (v for v in [*inherited, *own, element.text or ""] if not re.match(r"rotate\(-?0 ", v))
            found.append((tag, [float(n) for n in re.findall(r"-?\d+\.?\d*", " ".join(turned))]))
        for child in element:
            visit(child, inherited)

    visit(ElementTree.fromstring(text), [])
    return found


@pytest.mark.parametrize("always", [{}, {"figure.autolayout": True}, {"figure.constrained_layout.use": True}], ids=str)
@pytest.mark.parametrize("layout", ["constrained", "tight", None])
def test_a_layout_made_once_is_that_of_matplotlib(layout, always):
    def figure():
        figure = Figure(layout=layout, dpi=110)
        ax = figure.add_subplot()
        ax.plot([1, 2, 3], label="mean")
        ax.set_ylabel("value")
        ax.legend()
        figure.supxlabel("time")
        return figure

    with rc_context({"svg.hashsalt": "test", **always}):
        plain = io.BytesIO()
        figure().savefig(plain, format="svg", metadata={"Date": None, "Creator": None})
        saved = figure()
        assert svg.save(saved, "svg") == plain.getvalue()
    assert saved.dpi == 110
    frame = saved.axes[0].get_position().bounds
    svg.save(saved, "png")
    assert saved.axes[0].get_position().bounds == frame


def test_what_is_drawn_stays(drawing):
    text = svg.inline(drawing, "p-")
    before, after = drawn(drawing.decode()), drawn(text.replace("<svg", ROOT, 1))
    assert len(before) > 50
    assert [tag for tag, _ in before] == [tag for tag, _ in after]
    for (_, numbers), (_, rounded) in zip(before, after, strict=True):
        assert rounded == pytest.approx(numbers, abs=0.051)


def test_nothing_is_there_for_nothing(drawing):
    text = svg.inline(drawing, "p-")
    assert "<g>" not in text
    assert text.count("<g ") == text.count("</g>") > 0
    assert not re.search(r' (x|y|d)="[^"]*\.\d\d', text)
    assert "rotate(-0" not in text
    assert "rotate(-30" in text
    used = set(re.findall(r"#(p-[\w-]+)", text))
    assert used == set(re.findall(r' id="([^"]+)"', text))
