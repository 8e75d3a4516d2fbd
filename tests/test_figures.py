"""Pictures taken out of a page for slides."""

import re
import sys
import xml.etree.ElementTree as ET
from html import unescape
from pathlib import Path

import pytest

from normlib import plots
from normlib.cube import METHODS, AxisCube
from normlib.design import DesignSpace
from normlib.explorer import Explorer
from normlib.guide import Guide
from normlib.quiz import Quiz
from tools import figures

sys.path.append(str(Path(__file__).resolve().parents[1] / "chapters" / "_ext"))
import small_batches

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def markup():
    """The HTML of a figure of each kind, as the built page holds it."""
    axes = plots.panels(2)
    for ax in axes:
        ax.plot([0, 1], [0, 1])
        ax.set(xlabel="x", ylabel="y")
    texts = {"title": "A line", "x_label": "x", "y_label": "y", "alt": "A line that turns."}
    explorer = Explorer(lambda m: {"a": ([0, 1], [0, m])}, sliders={"m": [1, 2]}, **texts)
    made = {"plot": plots.show(*axes, alt="It's a < b"), "explorer": explorer, "cube": AxisCube()}
    made |= {"design": DesignSpace(), "guide": Guide(), "quiz": Quiz("03_noise_and_batch_size")}
    return {name: figure._repr_mimebundle_()["text/html"] for name, figure in made.items()}


@pytest.fixture
def page(tmp_path, monkeypatch, markup):
    monkeypatch.setattr(figures, "PAGES", tmp_path / "chapters")
    monkeypatch.setattr(figures, "TARGET", tmp_path / "figures")
    figures.PAGES.mkdir()
    text = small_batches._as_files("".join(markup.values()), tmp_path / "_images", "../")
    assert text.count('class="nl-light') == text.count('class="nl-dark') == 3  # two panels and a still
    (figures.PAGES / "01_x.html").write_text(text, encoding="utf-8")


def test_each_drawing_becomes_a_file_that_stands_alone(page, markup, capsys):
    figures.TARGET.mkdir()
    (figures.TARGET / "09_gone-01.svg").write_text("of an earlier book")
    assert figures.main() == 0
    assert sorted(path.name for path in figures.TARGET.iterdir()) == [f"01_x-0{n}.svg" for n in (1, 2, 3)]
    assert "3 figures" in (said := capsys.readouterr().out)
    assert "left out, being text in print: 3" in said
    assert not [path for path in figures.TARGET.iterdir() if "dark" in path.read_text(encoding="utf-8")]
    plot, explorer, cube = (ET.parse(path).getroot() for path in sorted(figures.TARGET.iterdir()))
    assert plot.find(f"{SVG}title").text == "It's a < b"
    assert len(plot.findall(f"{SVG}svg")) == 2
    assert len(explorer.findall(f"{SVG}svg")) == 1
    for drawing in (plot, explorer):
        assert len(drawing.findall(f".//{SVG}path")) > 10
    for name, drawing in (("explorer", explorer), ("cube", cube)):
        label = re.search(r'class="nl-still"[^>]* aria-label="([^"]*)"', markup[name])[1]
        assert drawing.find(f"{SVG}title").text == unescape(label)


def test_panels_stand_side_by_side_under_their_names(markup, tmp_path):
    drawing = ET.fromstring(figures.svg(markup["cube"], tmp_path))
    panels = drawing.findall(f"{SVG}svg")
    assert len(panels) == len(METHODS)
    names = [text.text for text in drawing.findall(f"{SVG}text")]
    assert [name.split(" of ")[0].split(", G")[0] for name in names] == list(METHODS.values())
    lefts = [float(panel.attrib["x"]) for panel in panels]
    widths = [float(panel.attrib["width"]) for panel in panels]
    gaps = [b - a - width for a, b, width in zip(lefts, lefts[1:], widths, strict=False)]
    assert gaps == [figures.GAP] * (len(METHODS) - 1)
    _, _, width, height = map(float, drawing.attrib["viewBox"].split())
    assert width == lefts[-1] + widths[-1]
    assert height == figures.LINE + float(panels[0].attrib["height"])
    for panel in panels:
        assert panel.attrib["width"] == panel.attrib["viewBox"].split()[2]


def test_without_a_book_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "PAGES", tmp_path)
    assert figures.main() == 1
    assert "make book" in capsys.readouterr().err
