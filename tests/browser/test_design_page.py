"""The design space in a page opened from disk: by mouse, by keyboard, without scripts, in both themes."""

import itertools

import pytest
from standalone import write_page

from normlib.design import CHOICES, FLOWS, SETS, SOURCES, DesignSpace, named, setting


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"), "design", DesignSpace())


def readout(page):
    parts = ("name", "forward", "backward", "sentence")
    return [page.locator(f".nl-{part}").text_content() for part in parts]


def words(*key):
    what = setting(*key)
    return [what.name, what.forward, what.backward, what.sentence]


def test_every_setting_shows_and_says_what_python_does(open_page):
    page = open_page()
    for key in itertools.product(*CHOICES.values()):
        for name, value in zip(CHOICES, key, strict=True):
            page.get_by_role("radio", name=CHOICES[name][value], exact=True).check()
        sets, source, _ = key
        assert readout(page) == words(*key)
        shown = page.eval_on_selector_all(".nl-map tbody td", "(cells) => cells.map((c) => [c.className, c.innerText])")
        wanted = [[f"nl-{s.kind}", s.short] for s in (setting(sets, s, f) for f in FLOWS for s in SOURCES)]
        assert shown == wanted
        here = page.locator(".nl-map td[aria-current]")
        assert here.count() == 1
        assert here.text_content() == setting(*key).short
        assert SETS[sets] in page.locator(".nl-drawing").get_attribute("aria-label")
        assert page.locator(".nl-across").text_content() == ("input channels" if source == "weights" else "channels")
    assert page.problems == []


def test_keyboard_turns_one_method_into_another_and_it_is_announced(open_page):
    page = open_page()
    assert page.locator(".nl-readout").get_attribute("aria-live") == "polite"
    page.get_by_role("radio", name=SOURCES["batch"]).focus()
    page.keyboard.press("ArrowDown")
    assert readout(page)[0] == "Momentum Batch Norm"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    assert readout(page)[0] == "Batch Renorm without bounds"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    assert readout(page)[0] == "Batch Renorm without bounds, virtual batches"
    assert page.problems == []


def test_a_cell_of_the_map_can_be_clicked(open_page):
    page = open_page()
    page.get_by_role("cell", name="BRN", exact=True).click()
    assert readout(page) == words("channel", "history", "whole")
    assert page.get_by_role("radio", name=SOURCES["history"], exact=True).is_checked()
    assert page.get_by_role("radio", name=FLOWS["whole"], exact=True).is_checked()


def test_ink_follows_the_theme(open_page):
    for theme, color in (("light", "rgb(34, 40, 50)"), ("dark", "rgb(206, 214, 221)")):
        page = open_page(theme=theme)
        text = page.locator(".nl-drawing text").first
        assert text.evaluate("(node) => getComputedStyle(node).fill") == color
        assert page.locator(".nl-map th").first.evaluate("(node) => getComputedStyle(node).color") == color


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_fits_the_screen_with_readable_text(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for text in page.query_selector_all(".nl-drawing text"):
        size = text.evaluate("(t) => parseFloat(t.getAttribute('font-size')) * t.ownerSVGElement.getScreenCTM().a")
        assert size >= 9.5
    for part in page.query_selector_all(".nl-map td, .nl-map th, .nl-design label"):
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert part.evaluate("(node) => node.scrollWidth <= node.clientWidth + 1")


def test_without_scripts_and_in_print_a_table_of_names_remains(unscripted, on_paper):
    page = unscripted
    assert page.locator(".nl-still").is_visible()
    assert page.locator(".nl-still tbody tr").count() == len(named())
    assert not page.locator(".nl-controls").is_visible()
    assert not page.locator(".nl-live").is_visible()

    page = on_paper
    assert page.locator(".nl-still").is_visible()
    assert not page.locator(".nl-live").is_visible()
