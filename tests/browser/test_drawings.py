"""Drawings of a page are files, fetched when their place comes near, on paper, or by a browser without scripts."""

import io

import numpy as np
import pytest
from PIL import Image
from test_book import HTML, _built  # noqa: F401  (_built skips or fails where there is no book)

PAGE = HTML / "chapters" / "07_momentum_batch_norm.html"
FIGURES = ".bd-article figure.nl-figure"
# Of the pictures that are shown, how many have come, and how many there are.
SHOWN = """() => {
  const shown = [...document.querySelectorAll(".bd-article img:is(.nl-light, .nl-dark)")]
    .filter((image) => image.checkVisibility());
  return [shown.filter((image) => image.complete && image.naturalWidth > 0).length, shown.length];
}"""


def test_one_that_comes_near_is_fetched_into_its_place(page_factory):
    page = page_factory()
    page.goto(PAGE.as_uri())
    picture = page.locator(FIGURES).last.locator("img.nl-light").first
    assert not picture.evaluate("(image) => image.complete")
    empty = picture.evaluate("(image) => image.getBoundingClientRect().height")
    picture.scroll_into_view_if_needed()
    picture.evaluate("(image) => image.decode()")
    assert picture.bounding_box()["height"] == pytest.approx(empty, abs=0.5)
    assert empty > 100
    assert page.problems == []


def test_ink_is_the_text_of_the_theme_also_when_the_reader_changes_it(page_factory):
    page = page_factory(theme="light")
    page.goto(PAGE.as_uri())
    page.locator(FIGURES).first.scroll_into_view_if_needed()
    for theme in ("light", "dark", "light"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        text = page.locator(".bd-article p").first.evaluate("(p) => getComputedStyle(p).color")
        picture = page.locator(f"{FIGURES} img.nl-{theme}").first
        assert page.locator(f"{FIGURES} img:visible").count() == page.locator(f"{FIGURES} img.nl-{theme}").count()
        picture.evaluate("(image) => image.decode()")
        seen = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB")).astype(int)
        ink = [int(part) for part in text[4:-1].split(",")]
        assert (abs(seen - ink).max(2) < 12).sum() > 20
        colors, counts = np.unique(seen.reshape(-1, 3), axis=0, return_counts=True)
        ground = colors[counts.argmax()]  # the page's own, no card
        assert (ground < 30).all() if theme == "dark" else (ground == 255).all()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_paper_has_all_and_is_light(page_factory, theme):
    page = page_factory(theme=theme)
    page.goto(PAGE.as_uri())
    come, there = page.evaluate(SHOWN)
    assert come < there
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
          window.ink = getComputedStyle(document.querySelector(".bd-article p")).color;
        })"""
    )
    page.pdf()
    assert page.evaluate("window.ink") == "rgb(34, 40, 50)"
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.emulate_media(media="print")
    come, there = page.evaluate(SHOWN)
    assert come == there == page.locator(".bd-article img.nl-light").count() > 15
    assert page.locator(".nl-still img.nl-light").count()


def test_without_scripts_the_browser_shows_all(browser):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(PAGE.as_uri())
        come, there = page.evaluate(SHOWN)
        assert come == there == page.locator(".bd-article img.nl-light").count() > 15
