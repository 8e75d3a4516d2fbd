"""A quiz in a page opened from disk: every answer, by keyboard, without scripts, on any screen."""

import pytest
from standalone import write_page

from normlib.questions import QUESTIONS
from normlib.quiz import UNCHOSEN, Quiz

CHAPTER = "02_batch_normalization"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"), "quiz", Quiz(CHAPTER), Quiz("05_layer_instance_group"))


def test_every_answer_is_met_by_its_reason(open_page):
    page = open_page()
    everything = QUESTIONS[CHAPTER] + QUESTIONS["05_layer_instance_group"]
    for box, question in zip(page.locator(".nl-question").all(), everything, strict=True):
        said = box.locator(".nl-said")
        assert said.get_attribute("aria-live") == "polite"
        box.get_by_role("button").click()
        assert said.text_content() == UNCHOSEN
        for number, answer in enumerate(question.answers):
            box.get_by_label(answer.text, exact=True).check()
            assert said.text_content() == ""  # of another answer
            box.get_by_role("button").click()
            verdict = "Right." if number == question.right else "Not so."
            assert said.text_content().startswith(f"{verdict} {answer.because} (“")
    assert page.problems == []


def test_it_is_answered_by_keyboard_with_visible_focus(open_page):
    page = open_page()
    question = QUESTIONS[CHAPTER][0]
    focused = "() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth] }"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == ["solid", "2px"]
    page.keyboard.press("Space")
    for _ in range(question.right):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "nl-check"
    assert page.evaluate(focused) == ["solid", "2px"]
    page.keyboard.press("Enter")
    assert page.locator(".nl-said").first.text_content().startswith("Right.")
    assert page.problems == []


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_fits_the_screen(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for label in page.query_selector_all(".nl-quiz label, .nl-quiz button"):
        box = label.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] >= 24  # a finger's


def test_without_scripts_and_in_print_the_list_remains(unscripted, on_paper):
    page = unscripted
    first = QUESTIONS[CHAPTER][0]
    assert page.locator(".nl-still > li").first.is_visible()
    assert page.locator(".nl-still > li").first.text_content().startswith(first.asks)
    reason = page.locator(".nl-still details p").first
    assert not reason.is_visible()
    page.get_by_text("Answer to question 1").first.click()
    assert reason.is_visible()
    assert reason.text_content().startswith(f"{'abcd'[first.right]}) {first.answers[first.right].because}")
    assert not page.locator(".nl-live").first.is_visible()

    page = on_paper
    assert page.locator(".nl-still").first.is_visible()
    assert not page.locator(".nl-live").first.is_visible()
