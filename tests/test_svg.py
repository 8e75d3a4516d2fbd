"""Inline drawings: lighter than matplotlib's, and the same."""

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
    """Every element that shows, in order: its numbers, and the attributes that it gets from the groups around it."""
    found = []

    def visit(element, inherited):
        tag = element.tag.rpartition("}")[2]
        own = {k: v for k, v in element.attrib.items() if k != "id"}
        if tag == "g":
            inherited = [*inherited, *(v for v in own.values())]
        elif tag in ("path", "use", "text", "rect"):
            values = [*inherited, *(v for k, v in own.items() if k not in ("style", HREF)), element.text or ""]
            turned = (v for v in values if not re.match(r"rotate\(-?0 ", v))
            numbers = re.findall(r"-?\d+\.?\d*", " ".join(turned))
            found.append((tag, [round(float(n)) for n in numbers if "e" not in n]))
        for child in element:
            visit(child, inherited)

    visit(ElementTree.fromstring(text), [])
    return found


def test_what_is_drawn_stays(drawing):
    text = svg.inline(drawing, "p-")
    before, after = drawn(drawing.decode()), drawn(text.replace("<svg", ROOT, 1))
    assert [tag for tag, _ in before] == [tag for tag, _ in after]
    assert len(before) > 50
    for (tag, numbers), (_, rounded) in zip(before, after, strict=True):
        if tag != "path":  # a path's id may be in its clip's name
            assert len(numbers) == len(rounded)
            assert all(abs(a - b) <= 1 for a, b in zip(numbers, rounded, strict=True)), (numbers, rounded)


def test_nothing_is_there_for_nothing(drawing):
    text = svg.inline(drawing, "p-")
    assert "<g>" not in text
    assert text.count("<g ") == text.count("</g>") > 0
    assert not re.search(r' (x|y|d)="[^"]*\.\d\d', text)
    assert "rotate(-0" not in text
    assert "rotate(-30" in text
    used = set(re.findall(r"#(p-[\w-]+)", text))
    assert used == set(re.findall(r' id="([^"]+)"', text))
