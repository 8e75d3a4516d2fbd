"""The questions as data, and what a quiz makes of them in each front end."""

import json
import re
from pathlib import Path

import pytest
from docutils import nodes

from normlib import quiz
from normlib.questions import QUESTIONS
from normlib.quiz import Quiz
from tools import notebooks

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
ALL = [(chapter, question) for chapter, questions in QUESTIONS.items() for question in questions]
each_chapter = pytest.mark.parametrize("chapter", QUESTIONS)


def cells(chapter):
    return json.loads((CHAPTERS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]


def test_every_chapter_ends_with_its_quiz():
    assert set(QUESTIONS) == {path.stem for path in notebooks.numbered()}
    for chapter in QUESTIONS:
        last = [cell for cell in cells(chapter) if cell["cell_type"] == "code"][-1]
        assert f'Quiz("{chapter}")' in "".join(last["source"]), f"{chapter}: its last code cell is no quiz of its own"


@each_chapter
def test_questions_are_well_formed(chapter):
    questions = QUESTIONS[chapter]
    assert 3 <= len(questions) <= 4
    assert len({q.asks for q in questions}) == len(questions)
    for question in questions:
        texts = [answer.text for answer in question.answers]
        assert 3 <= len(texts) <= 4
        assert len(set(texts)) == len(texts)
        assert 0 <= question.right < len(texts)
        for text in (question.asks, *texts, *(answer.because for answer in question.answers)):
            assert text == text.strip()
            assert not re.search(r"[$\\`*<>]|  ", text), f"{chapter}: markup in {text!r}"


def test_neither_place_nor_length_gives_the_right_answer_away():
    places = [question.right for _, question in ALL]
    assert max(map(places.count, places)) < len(ALL) / 2
    longest = [max(range(len(q.answers)), key=lambda i: len(q.answers[i].text)) for _, q in ALL]
    assert sum(map(int.__eq__, longest, places)) < len(ALL) / 2


@each_chapter
def test_every_reason_leads_to_a_section(chapter):
    text = "\n".join("".join(cell["source"]) for cell in cells(chapter) if cell["cell_type"] == "markdown")
    headings = set(re.findall(r"^##+ (.+)$", text, re.MULTILINE))
    for question in QUESTIONS[chapter]:
        wrong = {answer.section for answer in question.answers} - headings
        assert not wrong, f"{chapter} has no heading {wrong}"


def test_anchors_are_those_of_docutils():
    headings = {answer.section for _, question in ALL for answer in question.answers}
    for heading in headings | {'"At least 32"?', "92.2 against 95.0", "Übung – é", " a b ", "…"}:
        assert quiz.anchor(heading) == nodes.make_id(heading)


@each_chapter
def test_in_words_it_asks_and_then_answers(chapter):
    words = re.sub(r"\s+", " ", repr(Quiz(chapter)))
    asked, _, answered = words.partition(" Answers ")
    for number, question in enumerate(QUESTIONS[chapter], start=1):
        assert f"{number}. {question.asks} a) {question.answers[0].text}" in asked
        right = question.answers[question.right]
        assert f"{number}. {'abcd'[question.right]}) {right.because} (“" in answered
        assert right.because not in asked


def test_the_page_holds_a_reply_to_every_answer():
    page = Quiz("02_batch_normalization")._repr_mimebundle_()["text/html"]
    data = json.loads(re.search(r'class="nl-data">(.*?)</script>', page, re.DOTALL)[1])
    for question, replies in zip(QUESTIONS["02_batch_normalization"], data["replies"], strict=True):
        assert [reply.startswith("<p><b>Right.</b>") for reply in replies] == [
            i == question.right for i in range(len(question.answers))
        ]
    assert "checked" not in page
    assert page == Quiz("02_batch_normalization")._repr_mimebundle_()["text/html"]


def test_an_unknown_chapter_is_named():
    with pytest.raises(ValueError, match=r"chapter must be one of 01_why_normalize, .*, got '12_more'"):
        Quiz("12_more")


def test_a_widget_asks_too():
    pytest.importorskip("ipywidgets")
    first = QUESTIONS["03_noise_and_batch_size"][0]
    _, question, *_ = Quiz("03_noise_and_batch_size").widget().children
    text, choice, button, said = question.children
    assert first.answers[1].text in text.value
    button.click()
    assert quiz.UNCHOSEN in said.value
    choice.value = 0
    assert said.value == ""
    button.click()
    assert "Not so." in said.value
    choice.value = first.right
    button.click()
    assert "Right." in said.value
