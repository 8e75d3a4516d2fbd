"""Interactive figures as a published notebook stores them, on a page that has nothing of the book's own."""

import base64
import hashlib

import pytest
from watch import start_figures

from normlib import explorer
from normlib.cube import AxisCube
from normlib.design import DesignSpace
from normlib.explorer import Explorer
from normlib.guide import Guide
from normlib.quiz import Quiz
from tools import publish
from tools.plain import Book

PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Notebook</title>{head}</head><body>{body}</body>'
)
# The module loader of the classic notebook, as far as a script sees it.
LOADER = "<script>window.define = Object.assign(() => { throw new Error('taken for a module') }, { amd: {} })</script>"


@pytest.fixture(scope="module")
def vega(tmp_path_factory):
    """vl-convert's own copy stands in for the one on the network."""
    folder = tmp_path_factory.mktemp("vega")
    explorer.write_assets(folder)
    return (folder / "vega.js").read_bytes()


@pytest.fixture
def open_page(page_factory, tmp_path, monkeypatch, vega):
    book = Book()
    page = next(iter(book.pages.values()))

    def make(*figures, served=vega, integrity=None, head="", **options):
        digest = base64.b64encode(hashlib.sha384(vega).digest()).decode()
        monkeypatch.setitem(publish.VEGA, "integrity", integrity or f"sha384-{digest}")
        body = ""
        for figure in figures:
            data = figure._repr_mimebundle_()
            output = publish.nbformat.v4.new_output("display_data", data=data)
            (output,) = publish._output(output, publish.Converter(book, page), "here")
            body += f"<div>{output.data['text/html']}</div>"
        path = tmp_path / "index.html"
        path.write_text(PAGE.format(head=head, body=body), encoding="utf-8")
        tab = page_factory(**options)
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": "application/javascript"}
        answer = {"body": served, "headers": headers} if served else {"status": 404}
        tab.route(publish.VEGA["address"], lambda route: route.fulfill(**answer))
        tab.goto(path.as_uri())
        return tab

    return make


def line(slope):
    return {"a": ([0.0, 1.0], [0.0, float(slope)])}


@pytest.fixture(scope="module")
def figures():
    texts = {
        "x_label": "x",
        "y_label": "y",
        "alt": "A line that turns.",
        "readout": lambda slope: f"It rises by {slope}.",
    }
    two = [
        Explorer(line, sliders={"slope": [1, 2, 4]}, title=f"{name} </script> line", **texts) for name in ("One", "Two")
    ]
    return [*two, AxisCube(), DesignSpace(), Guide(), Quiz("03_noise_and_batch_size")]


@pytest.mark.parametrize("head", ["", LOADER], ids=["plain", "with a module loader"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_figure_starts_by_itself_and_answers_its_own_slider(open_page, figures, head, theme):
    page = open_page(*figures, head=head, theme=theme)
    page.wait_for_function("() => document.querySelectorAll('.nl-interactive').length === 6")
    start_figures(page)
    assert page.locator("img:visible").count() == 0
    drawing = "el => el.querySelector('svg path[stroke-width=\"2\"]').getAttribute('d')"
    one, two = (page.locator(".nl-chart").nth(i) for i in (0, 1))
    page.wait_for_function("() => document.querySelectorAll('.nl-chart svg path[stroke-width=\"2\"]').length >= 2")
    before, other = one.evaluate(drawing), two.evaluate(drawing)
    page.get_by_label("slope").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("([el, before, f]) => eval(f)(el) !== before", arg=[one.element_handle(), before, drawing])
    assert page.locator(".nl-readout").first.text_content() == "It rises by 2."
    assert two.evaluate(drawing) == other
    page.get_by_role("button", name="Check the answer to question 1").click()
    assert "answer" in page.locator(".nl-said").first.text_content()
    if head:
        assert page.evaluate("() => typeof window.define") == "function"
    allowed = f"left the disk: {publish.VEGA['address']}"
    assert [problem for problem in page.problems if problem != allowed] == []


@pytest.mark.parametrize(
    "broken", [{"integrity": "sha384-" + "A" * 64}, {"served": None}], ids=["another script", "no network"]
)
def test_the_picture_stays_where_vega_is_not_what_it_should_be(open_page, figures, broken):
    page = open_page(figures[0], **broken)
    page.wait_for_function("() => document.querySelector('script[integrity]')")
    page.wait_for_load_state("networkidle")
    assert page.get_by_role("img", name="A line that turns. Small multiples over slope.").is_visible()
    assert page.locator("input").count() == 0
    assert page.locator(".nl-on").count() == 0


def test_print_shows_the_still_picture_again(open_page, figures):
    page = open_page(figures[0])
    page.wait_for_selector(".nl-on")
    page.emulate_media(media="print")
    assert page.locator(".nl-still img").is_visible()
    assert not page.locator(".nl-controls").is_visible()
