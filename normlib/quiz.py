"""The questions at the end of a chapter, to be answered on the spot.

    Quiz("02_batch_normalization")                 # as a cell's last value

What is asked is data, in normlib/questions.py. Choose, then check: every answer, right or wrong, is met by a sentence
that points to the place in the chapter. With a kernel by ipywidgets; in the built page by native radio buttons
(chapters/_static/quiz.js); elsewhere as a list, its answers folded or at the end.
"""

import html
import re
import textwrap
import unicodedata

from .interactive import Interactive, embedded, radio_buttons, unique_id
from .questions import QUESTIONS, Answer, Question

LETTERS = "abcdefgh"
UNCHOSEN = "Choose an answer first."


def anchor(section: str) -> str:
    """The id that docutils gives a heading, but for letters that it spells out, such as ø."""
    ascii_only = unicodedata.normalize("NFKD", section).encode("ascii", "ignore").decode()
    return re.sub(r"^[-0-9]+|-+$", "", re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()))


class Quiz(Interactive):
    """The questions of a chapter.

    Args:
        chapter: a key of QUESTIONS: the notebook's name without its suffix.

    Raises:
        ValueError: a chapter that has no questions.
    """

    title = "Questions"
    caption = None

    def __init__(self, chapter: str):
        if chapter not in QUESTIONS:
            raise ValueError(f"chapter must be one of {', '.join(QUESTIONS)}, got {chapter!r}")
        self.chapter = chapter
        self.questions = QUESTIONS[chapter]
        self._prepare({"text/plain": repr(self)})

    def widget(self):
        """A new ipywidgets VBox: each question over its answers' letters and a button."""
        import ipywidgets

        return self._framed(*(self._question_widget(ipywidgets, *pair) for pair in enumerate(self.questions, start=1)))

    @staticmethod
    def _question_widget(ipywidgets, number: int, question: Question):
        # The answers stand in the HTML above: a radio button's label does not wrap in every version.
        listed = "".join(f"<div>{LETTERS[i]}) {html.escape(a.text)}</div>" for i, a in enumerate(question.answers))
        text = ipywidgets.HTML(f"<b>{number}. {html.escape(question.asks)}</b>{listed}")
        options = [(LETTERS[i], i) for i in range(len(question.answers))]
        choice = ipywidgets.RadioButtons(options=options, value=None, layout={"width": "auto"})
        button = ipywidgets.Button(description="Check", tooltip=f"Check the answer to question {number}")
        said = ipywidgets.HTML()

        def check(_button):
            chosen = choice.value
            said.value = f'<div role="status">{UNCHOSEN if chosen is None else _reply(question, chosen)}</div>'

        def clear(_change):
            said.value = ""

        button.on_click(check)
        choice.observe(clear, names="value")
        return ipywidgets.VBox([text, choice, button, said], layout={"margin": "0 0 1em 0"})

    def __repr__(self) -> str:
        lines, answers = [f"{self.title}. The answers are at the end."], ["", "Answers"]
        for number, question in enumerate(self.questions, start=1):
            lines += ["", *textwrap.wrap(f"{number}. {question.asks}", 96, subsequent_indent="   ")]
            for letter, answer in zip(LETTERS, question.answers, strict=False):
                lines += textwrap.wrap(f"   {letter}) {answer.text}", 96, subsequent_indent="      ")
            right = question.answers[question.right]
            answer = f"{number}. {LETTERS[question.right]}) {right.because} ({_quoted(right.section)})"
            answers += textwrap.wrap(answer, 96, subsequent_indent="   ")
        return "\n".join(lines + answers)

    def _html(self) -> str:
        replies = [[_reply(q, i, links=True) for i in range(len(q.answers))] for q in self.questions]
        data = embedded({"replies": replies, "unchosen": UNCHOSEN})
        unique = unique_id(self.title, self.chapter, data)
        live = still = ""
        for number, question in enumerate(self.questions, start=1):
            name = f"{unique}-{number}"
            options = {str(i): answer.text for i, answer in enumerate(question.answers)}
            live += (
                f'<div class="nl-question">{radio_buttons(name, f"{number}. {question.asks}", options, start="")}'
                f'<button type="button" class="nl-check" aria-label="Check the answer to question {number}">Check'
                f'</button><div class="nl-said" aria-live="polite"></div></div>'
            )
            listed = "".join(f"<li>{html.escape(answer.text)}</li>" for answer in question.answers)
            still += (
                f'<li>{html.escape(question.asks)}<ol type="a">{listed}</ol>'
                f"<details><summary>Answer to question {number}</summary>"
                f"<p>{LETTERS[question.right]}) {_why(question.answers[question.right], links=True)}</p></details></li>"
            )
        return (
            f'<figure class="nl-interactive nl-quiz mathjax_ignore tex2jax_ignore" id="{unique}">'
            f'<p class="nl-title" id="{unique}-title">{self.title}</p>'
            f'<div class="nl-live" role="group" aria-labelledby="{unique}-title" hidden>{live}</div>'
            f'<ol class="nl-still">{still}</ol>'
            f'<script type="application/json" class="nl-data">{data}</script></figure>'
        )


def _quoted(section: str) -> str:
    return f"“{section.replace(chr(34), '')}”"  # a heading may be a quotation itself


def _why(answer: Answer, *, links: bool) -> str:
    place = html.escape(_quoted(answer.section))
    place = f'<a href="#{anchor(answer.section)}">{place}</a>' if links else place
    return f"{html.escape(answer.because)} ({place})"


def _reply(question: Question, chosen: int, *, links: bool = False) -> str:
    """What is said to an answer, as HTML; links lead to the headings of the same page."""
    verdict = "Right." if chosen == question.right else "Not so."
    return f"<p><b>{verdict}</b> {_why(question.answers[chosen], links=links)}</p>"
