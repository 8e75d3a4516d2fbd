"""The decision guide in a page opened from disk: every answer, by keyboard, without scripts, on any screen."""

import pytest
from standalone import write_page

from normlib.guide import ADVICE, QUESTIONS, Guide, advise, situations


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"), "guide", Guide())


def shown(page):
    return page.locator(".nl-live b").text_content(), page.locator(".nl-live pre").text_content()


def test_every_situation_shows_what_python_advises(open_page):
    page = open_page()
    groups = {name: page.get_by_role("group", name=question) for name, (question, _) in QUESTIONS.items()}
    answer = {
        (name, key): groups[name].get_by_label(text, exact=True).element_handle()
        for name, (_, texts) in QUESTIONS.items()
        for key, text in texts.items()
    }
    click = "(answers) => answers.forEach((answer) => answer.click())"
    for answers in situations():
        page.evaluate(click, [answer[chosen] for chosen in answers.items()])
        advice = advise(**answers)
        assert shown(page) == (advice.name, advice.code.strip())
    assert page.problems == []


def test_keyboard_changes_an_answer_and_it_is_announced(open_page):
    page = open_page()
    assert page.locator(".nl-live").get_attribute("aria-live") == "polite"
    start = next(situations()) | {"m": "2"}
    page.get_by_label(QUESTIONS["m"][1]["2"], exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert shown(page)[0] == advise(**start | {"m": "8"}).name
    assert page.problems == []


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_fits_the_screen(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for label in page.query_selector_all(".nl-guide label"):
        box = label.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_without_scripts_and_in_print_all_advice_remains(unscripted, on_paper):
    page = unscripted
    assert page.locator(".nl-still").is_visible()
    assert page.locator(".nl-still dt").count() == len(ADVICE)
    assert not page.locator(".nl-controls").is_visible()
    assert not page.locator(".nl-live").is_visible()

    page = on_paper
    assert page.locator(".nl-still").is_visible()
    assert not page.locator(".nl-live").is_visible()
