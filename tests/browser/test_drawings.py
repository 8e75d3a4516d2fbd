"""Drawings of a page wait as text and are drawn when they come near, on paper, or by a browser without scripts."""

import pytest
from test_book import HTML, _built  # noqa: F401  (_built skips or fails where there is no book)

PAGE = HTML / "chapters" / "07_momentum_batch_norm.html"
FIGURES = ".bd-article figure.nl-figure"
SHOWN = """(selector) => [...document.querySelectorAll(selector)]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().height > 0).length"""


@pytest.fixture
def opened(page_factory):
    page = page_factory()
    page.goto(PAGE.as_uri())
    return page


def test_one_that_comes_near_is_drawn_in_its_place(opened):
    figure = opened.locator(FIGURES).last
    place = figure.locator(".nl-later").first
    assert not figure.locator("path").count()
    height = "(svg) => svg.getBoundingClientRect().height"
    empty = place.evaluate(height)
    figure.scroll_into_view_if_needed()
    figure.locator("path").first.wait_for(state="attached")
    assert not figure.locator(".nl-later, noscript").count()
    assert figure.locator("svg").first.evaluate(height) == pytest.approx(empty, abs=0.5)
    assert empty > 100
    assert opened.problems == []


def test_paper_has_all(opened):
    waiting = opened.locator(".nl-later").count()
    assert waiting > 15
    assert opened.locator(".nl-still .nl-later").count()
    opened.pdf()
    assert not opened.locator(".nl-later").count()
    assert opened.locator(".bd-article svg:has(path)").count() >= waiting


def test_without_scripts_the_browser_draws_all(browser):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(PAGE.as_uri())
        assert page.evaluate(SHOWN, ".nl-later") == 0
        drawn = page.locator("noscript > svg").count()
        assert drawn > 15
        assert page.evaluate(SHOWN, "noscript > svg") == drawn
