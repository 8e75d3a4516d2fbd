"""What `make test-colab` asks of a notebook, on notebooks of a few cells with the versions at hand."""

import os
import re
import subprocess
from types import SimpleNamespace

import nbformat
import pytest

from tools import colab

RADIOS = """
import ipywidgets
radios = ipywidgets.RadioButtons(options=["a", "b"], value=None)
button, said = ipywidgets.Button(), ipywidgets.HTML()
button.on_click(lambda _: setattr(said, "value", {said}))
ipywidgets.VBox([radios, button, said])
"""


@pytest.fixture
def moved(tmp_path):
    """`moved(source)`: how many controls change the figure that a cell of this source shows."""

    def run(source):
        figure = nbformat.v4.new_output("display_data", data={"text/html": '<figure class="nl-interactive">'})
        path = tmp_path / "one.ipynb"
        cells = [nbformat.v4.new_code_cell(source, outputs=[figure])]
        path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)), encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NORMLIB")}
        with colab.Session(path, tmp_path, environment | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}) as session:
            session.run(0)
            return colab.check_widgets(session)

    return run


def test_a_quiz_answers_every_choice(moved):
    from normlib.questions import QUESTIONS

    chapter = "03_noise_and_batch_size"
    assert moved(f"from normlib.quiz import Quiz\nQuiz({chapter!r})") == len(QUESTIONS[chapter])


def test_a_slider_needs_no_button(moved):
    assert moved("from normlib.cube import AxisCube\nAxisCube()") >= 3


def test_radios_that_change_nothing_are_named(moved):
    assert moved(RADIOS.format(said="str(radios.value)")) == 1
    with pytest.raises(colab.ColabError, match=r"one\.ipynb, cell 1 .*no control of its widget changes"):
        moved(RADIOS.format(said="'choose'"))


def test_a_question_that_fails_says_why(tmp_path):
    path = tmp_path / "one.ipynb"
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])))
    with (
        colab.Session(path, tmp_path, dict(os.environ)) as session,
        pytest.raises(colab.ColabError, match=r"(?s)one\.ipynb, cell 2 .*ZeroDivisionError"),
    ):
        session.ask("1 / 0")


def cell(*outputs, tags=()):
    return nbformat.v4.new_code_cell("x", outputs=list(outputs), metadata={"tags": list(tags)})


def result(text):
    return nbformat.v4.new_output("execute_result", data={"text/plain": text})


def test_a_result_that_differs_is_named():
    caption = nbformat.v4.new_output(
        "display_data", data={"text/plain": "Five seeds.", "text/markdown": "*Five seeds.*"}
    )

    def fail(number, problem):
        raise colab.ColabError(problem)

    def check(stored, now):
        session = SimpleNamespace(
            stored=SimpleNamespace(cells=[stored]), notebook=SimpleNamespace(cells=[now]), fail=fail
        )
        colab.check_text(session)

    check(cell(result("0.5"), caption), cell(result("0.5")))
    check(cell(result("0.5"), tags=[colab.notebooks.VOLATILE]), cell(result("0.6")))
    with pytest.raises(colab.ColabError, match=re.compile("gave.*0.6.*stores.*0.5", re.DOTALL)):
        check(cell(result("0.5")), cell(result("0.6")))


def git(folder, *arguments):
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clone without a past, as CI makes it, in which a file was changed and others are new."""
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    for text in "12":
        (origin / "old.txt").write_text(text)
        (origin / ".gitignore").write_text("*.log")
        git(origin, "add", ".")
        git(origin, "commit", "-q", "-m", text)
    folder = tmp_path / "checkout"
    git(tmp_path, "clone", "-q", "--depth=1", origin.as_uri(), str(folder))
    (folder / "old.txt").write_text("3")
    for name in ("new.txt", "new.log"):
        (folder / name).write_text("new")
    monkeypatch.setattr(colab, "ROOT", folder)
    return folder


def test_the_snapshot_is_the_working_tree(checkout, tmp_path):
    before = git(checkout, "status", "--porcelain")
    address = colab.snapshot(tmp_path / "repository")
    assert git(checkout, "status", "--porcelain") == before
    git(tmp_path, "clone", "-q", "--depth=1", f"--branch={colab.repository.PUBLISHED}", address, "clone")
    clone = tmp_path / "clone"
    assert {p.name for p in clone.iterdir()} == {".git", ".gitignore", "old.txt", "new.txt"}
    assert (clone / "old.txt").read_text() == "3"


def test_a_snapshot_that_git_refuses_says_why(checkout, tmp_path):
    (tmp_path / "repository").write_text("in the way")
    with pytest.raises(colab.ColabError, match=r"git init failed\n.*repository"):
        colab.snapshot(tmp_path / "repository")
