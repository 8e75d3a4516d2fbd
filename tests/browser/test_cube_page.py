"""The axis cube in a page opened from disk: by mouse, by keyboard, without scripts, on any screen, in both themes."""

import itertools

import pytest
from standalone import write_page

from normlib.cube import LABELS, METHODS, OPTIONS, AxisCube


@pytest.fixture(scope="module")
def cube():
    return AxisCube((4, 6, 4), groups=3, caption="A caption.")


@pytest.fixture(scope="module")
def address(cube, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"), "cube", cube)


def slider(page, name):
    return page.get_by_label(LABELS[name], exact=True)


def sentence(page):
    return page.locator(".nl-readout").inner_text()


def test_every_setting_draws_and_says_what_python_does(open_page, cube):
    page = open_page()
    svg = page.locator(".nl-drawing svg")
    for method, name in METHODS.items():
        page.get_by_role("radio", name=name, exact=True).check()
        option = OPTIONS.get(method)
        for other in OPTIONS.values():
            assert slider(page, other).is_disabled() == (other != option)
        choices = range(len(cube.values[option])) if option else [None]
        for i, s, c in itertools.product(choices, (0, 2, 3), (0, 3, 5)):
            setting = {"method": method, "sample": s + 1, "channel": c + 1}
            if option:
                slider(page, option).fill(str(i))
                setting[option] = cube.values[option][i]
            slider(page, "sample").fill(str(s))
            slider(page, "channel").fill(str(c))
            assert sentence(page) == cube.readout(**setting)
            assert page.locator(".nl-drawing").get_attribute("aria-label") == f"{cube.alt} {cube.readout(**setting)}"
            shown = svg.evaluate("(svg) => [...svg.querySelectorAll('path')].map((p) => p.getAttribute('d'))")
            wanted = page.evaluate(
                "(text) => [...new DOMParser().parseFromString(text, 'text/html').querySelectorAll('path')]"
                ".map((p) => p.getAttribute('d'))",
                cube._svg(**setting),
            )
            assert shown == wanted
    assert page.problems == []


def test_keyboard_changes_the_method_and_the_value_and_both_are_announced(open_page, cube):
    page = open_page()
    assert page.locator(".nl-readout").get_attribute("aria-live") == "polite"
    page.get_by_role("radio", name="Group Norm").focus()
    page.keyboard.press("ArrowUp")
    assert sentence(page) == cube.readout(method="in")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert slider(page, "sample").get_attribute("aria-valuetext") == "sample 2"
    assert sentence(page) == cube.readout(method="in", sample=2)
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert sentence(page) == cube.readout(method="in", sample=2, channel=6)
    assert page.problems == []


def test_ink_follows_the_theme(open_page):
    for theme, color in (("light", "rgb(34, 40, 50)"), ("dark", "rgb(206, 214, 221)")):
        page = open_page(theme=theme)
        for part, attribute in ((".nl-cuts", "stroke"), ("text", "fill")):
            node = page.locator(f".nl-drawing {part}").first
            assert node.evaluate("(node, name) => getComputedStyle(node)[name]", attribute) == color


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_fits_the_screen_with_readable_text(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for text in page.query_selector_all(".nl-drawing text"):
        size = text.evaluate("(t) => parseFloat(t.getAttribute('font-size')) * t.ownerSVGElement.getScreenCTM().a")
        assert size >= 9.5
    for label in page.query_selector_all(".nl-methods label, .nl-slider:not(.nl-idle)"):
        box = label.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_the_drawing_does_not_jump_between_methods(open_page):
    page = open_page()
    places = set()
    for name in METHODS.values():
        page.get_by_role("radio", name=name, exact=True).check()
        places.add(tuple(page.locator(".nl-drawing").bounding_box().values()))
    assert len(places) == 1


def test_without_scripts_and_in_print_five_still_cubes_remain(unscripted, on_paper):
    page = unscripted
    assert page.locator(".nl-still svg").count() == 5
    assert page.locator(".nl-still").is_visible()
    assert not page.locator(".nl-controls").is_visible()
    assert not page.locator(".nl-live").is_visible()

    page = on_paper
    assert page.locator(".nl-still").is_visible()
    assert not page.locator(".nl-live").is_visible()
