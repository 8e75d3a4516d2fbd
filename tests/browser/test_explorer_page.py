"""Explorers in a page opened from disk: what is drawn, by mouse and by keyboard, on any screen, in both themes."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from latency import measure_slider_latency
from standalone import write_page

from normlib.explorer import Explorer, Slider

DATA = """
(figure) => {
  const rows = {};
  for (const set of ["line", "step", "points", "bars", "area"]) {
    let found = [];
    try { found = figure.normlib.view.data(set); } catch (error) { continue; } // no such kind in this chart
    for (const { c, x, x2, y } of found) (rows[c] = rows[c] || []).push([x, x2 === undefined ? null : x2, y]);
  }
  return rows;
}
"""


def bells(m, shift):
    x = np.linspace(-3, 3, 40)
    y = np.exp(-((x - shift) ** 2) * m)
    gap = np.where(np.abs(x) < 0.5, np.nan, y / 2)
    return {"bell": (x, y), "gap": (x, gap), "under": (x, y / 3), "sample": (x[::5] + shift, y[::5])}


def bins(m, kind):
    edges = np.linspace(0, 4, 9)
    y = np.arange(1, 9) ** (1 / m) / (2 if kind == "biased" else 3)
    return {"edges": (edges, y), "centers": (edges[:-1] + 0.25, y / 2), "line": (edges, edges / m)}


def powers(rate):
    x = 2.0 ** np.arange(9)
    return {'falls < & "quoted"': (x, rate / x)}


@pytest.fixture(scope="module")
def explorers():
    text = {"x_label": "x of a rather long name that has to wrap on a phone", "y_label": "y", "alt": "Curves."}
    return [
        Explorer(
            bells,
            sliders={"m": Slider([1, 2, 4, 8], label="batch size m", start=4), "shift": [-0.5, 0, 0.5]},
            title="Bells",
            styles={"under": "area", "sample": "points"},
            readout=lambda m, shift: f"At m = {m} the shift is {shift}.",
            **text,
        ),
        Explorer(
            bins,
            sliders={"m": [1, 2, 3], "kind": ["biased", "unbiased"]},
            title="Bins",
            styles={"edges": "bars", "centers": "step"},
            y_range="free",
            **text,
        ),
        Explorer(powers, sliders={"rate": [1e-5, 0.1, 1]}, title="Powers", x_scale="log", y_scale="log", **text),
    ]


@pytest.fixture(scope="module")
def address(explorers, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"), "explorer", *explorers)


@pytest.fixture
def open_page(open_page):
    """As for every figure, and until all charts are drawn."""

    def make(**options):
        page = open_page(**options)
        page.evaluate("Promise.all([...document.querySelectorAll('.nl-explorer')].map((f) => f.normlib.drawn))")
        return page

    return make


def expected_rows(explorer, values):
    """What each kind of mark draws, written out independently of explorer.js."""
    rows = {}
    for label, (x, y) in explorer.at(**values).items():
        kind = explorer.styles[label]
        if kind == "step":
            rows[label] = [[e, None, v] for a, b, v in zip(x, x[1:], y, strict=False) for e in (a, b)]
        elif kind == "bars":
            rows[label] = [list(row) for row in zip(x, x[1:], y, strict=False)]
        else:
            rows[label] = [[a, None, v] for a, v in zip(x, y, strict=True)]
    return rows


def test_the_view_holds_what_python_computed_at_every_grid_point(open_page, explorers):
    page = open_page()
    for figure, explorer in zip(page.query_selector_all(".nl-explorer"), explorers, strict=True):
        names = [s.name for s in explorer.sliders]
        for indices in itertools.product(*(range(len(s.values)) for s in explorer.sliders)):
            values = {s.name: s.values[i] for s, i in zip(explorer.sliders, indices, strict=True)}
            for control, i in zip(figure.query_selector_all("input"), indices, strict=True):
                control.fill(str(i))
            figure.evaluate("(figure) => figure.normlib.drawn")
            shown = figure.evaluate(DATA)
            wanted = expected_rows(explorer, values)
            assert set(shown) == set(wanted)
            for label in wanted:
                np.testing.assert_array_equal(
                    np.array(shown[label], dtype=float),
                    np.array(wanted[label], dtype=float),
                    err_msg=f"{names} {label}",
                )
            outputs = [o.inner_text() for o in figure.query_selector_all("output")]
            assert outputs == [s.texts[i] for s, i in zip(explorer.sliders, indices, strict=True)]
            if explorer.readout(**values):
                assert figure.query_selector(".nl-readout").inner_text() == explorer.readout(**values)
                label = figure.query_selector(".nl-chart").get_attribute("aria-label")
                assert label == f"{explorer.alt} {explorer.readout(**values)}"
    assert page.problems == []


def drawn(figure):
    figure.evaluate("(figure) => figure.normlib.drawn")
    return figure.query_selector(".nl-chart svg").inner_html()


def test_keyboard_moves_the_curve_and_announces_the_value(open_page):
    page = open_page()
    figure = page.query_selector(".nl-explorer")
    slider = page.get_by_role("slider", name="batch size m")
    assert slider.get_attribute("aria-valuetext") == "batch size m 4"
    before = drawn(figure)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "batch size m 8"
    assert drawn(figure) != before
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "batch size m 1"
    page.get_by_role("button", name="Reset").first.click()
    assert slider.get_attribute("aria-valuetext") == "batch size m 4"
    assert drawn(figure) == before
    assert page.problems == []


def test_mouse_drag_moves_only_its_own_figure(open_page):
    page = open_page()
    figures = page.query_selector_all(".nl-explorer")
    before = [drawn(f) for f in figures]
    slider = page.get_by_role("slider", name="batch size m")
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 2 / 3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, middle, steps=4)
    page.mouse.up()
    assert slider.input_value() == "3"
    after = [drawn(f) for f in figures]
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    assert page.problems == []


def test_text_follows_the_theme(open_page):
    page = open_page(theme="light")
    label = page.locator(".nl-chart svg text").first
    color = "(node) => getComputedStyle(node).fill"
    assert label.evaluate(color) == "rgb(34, 40, 50)"
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert label.evaluate(color) == "rgb(206, 214, 221)"
    assert open_page(theme="dark").locator(".nl-chart svg text").first.evaluate(color) == "rgb(206, 214, 221)"


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_fits_the_screen_with_readable_text(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for figure in page.query_selector_all(".nl-explorer"):
        box, svg = figure.bounding_box(), figure.query_selector(".nl-chart svg").bounding_box()
        assert svg["width"] == pytest.approx(min(box["width"], width - 32, 720), abs=1.5)
        for text in figure.query_selector_all(".nl-chart svg text, .nl-ticks span, .nl-key"):
            inside = text.bounding_box()
            assert inside["x"] >= box["x"] - 1
            assert inside["x"] + inside["width"] <= box["x"] + box["width"] + 2
        sizes = figure.query_selector_all(".nl-live *, .nl-slider *")
        assert min(float(s.evaluate("(n) => parseFloat(getComputedStyle(n).fontSize)")) for s in sizes) >= 11
    assert page.problems == []


def test_chart_follows_a_resized_window(open_page):
    page = open_page(width=1000)
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_function("document.querySelector('.nl-chart svg').getBoundingClientRect().width <= 368")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_print_shows_the_still_picture_without_controls(on_paper):
    assert on_paper.locator(".nl-still svg").first.is_visible()
    for part in (".nl-controls", ".nl-live", ".nl-reset"):
        assert not on_paper.locator(part).first.is_visible()


def test_without_scripts_the_still_picture_stands_in(unscripted):
    assert unscripted.locator(".nl-still svg").first.is_visible()
    assert not unscripted.locator(".nl-controls").first.is_visible()


def test_a_chart_that_cannot_start_leaves_the_still_picture(page_factory, address, tmp_path):
    source = Path(address.removeprefix("file://"))
    broken = tmp_path / "broken.html"
    shutil.copytree(source.parent / "_static", tmp_path / "_static", ignore=shutil.ignore_patterns("vega.js"))
    shutil.copyfile(source, broken)
    page = page_factory()
    page.goto(broken.as_uri())
    page.wait_for_selector(".nl-off")
    assert page.locator(".nl-still svg").first.is_visible()
    assert not page.locator(".nl-controls").first.is_visible()
    assert any("could not start" in problem for problem in page.problems)


def test_chart_is_one_image_to_a_screen_reader(open_page):
    page = open_page()
    assert page.get_by_role("img", name="Curves.").count() == 3  # and no still picture beside them
    assert page.get_by_role("slider").count() == 5
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids)), json.dumps(sorted(ids))


def test_a_slider_move_redraws_the_chart_that_is_there(open_page):
    """And builds no new one, which would take many frames; how long a move takes, `make bench` says."""
    page = open_page()
    charts = page.evaluate("[...document.querySelectorAll('.nl-chart svg')].map((chart) => (chart.old = true)).length")
    assert charts > 0
    assert measure_slider_latency(page, moves=20)["moves"] == 20
    old = page.evaluate("[...document.querySelectorAll('.nl-chart svg')].filter((chart) => chart.old).length")
    assert old == charts


@pytest.mark.parametrize("kind", ["symbol", "rect"])
def test_a_slider_move_keeps_the_elements_of_points_and_bars(open_page, kind):
    page = open_page()
    marks = f"[...document.querySelectorAll('.nl-chart .mark-{kind} path')]"
    before = page.evaluate(f"{marks}.map((mark) => (mark.old = true)).length")
    assert before > 0
    measure_slider_latency(page, moves=20)
    assert page.evaluate(f"{marks}.filter((mark) => mark.old).length") == before
