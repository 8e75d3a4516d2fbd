"""The stored form of the chapters. What their cells print is checked by nbval, beside these tests."""

import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from jupyter_cache import get_cache
from nbformat import v4

from tools import notebooks, toc

REMEDY = "run `make notebooks`"
TAGS = {
    notebooks.VOLATILE,
    *(f"{verb}-{part}" for verb in ("hide", "remove") for part in ("input", "output", "cell")),
    "scroll-output",
    "full-width",
}
CHAPTERS = notebooks.chapters()
DRAGGED = ("Explorer", "AxisCube", "DesignSpace", "Guide")  # figures of normlib that move


def cells(path, kind=None):
    for number, cell in enumerate(notebooks.read(path).cells, start=1):
        if kind is None or cell.cell_type == kind:
            yield notebooks.place(path, number, cell), cell


def test_there_are_chapters():
    assert CHAPTERS, f"no notebook in {notebooks.CHAPTERS}"
    assert notebooks.TEMPLATE in CHAPTERS


def test_every_chapter_but_the_template_is_in_the_table_of_contents():
    listed = {name.removeprefix("chapters/") for name, _ in toc.pages()}
    missing = {path.stem for path in CHAPTERS if path != notebooks.TEMPLATE} - listed
    assert not missing, f"_toc.yml: no line for {sorted(missing)}"
    assert notebooks.TEMPLATE.stem not in listed


def test_the_introduction_leads_to_every_chapter():
    text = (notebooks.CHAPTERS / "00_intro.ipynb").read_text(encoding="utf-8")
    missing = [path.name for path in notebooks.numbered() if f"]({path.name}) |" not in text]
    assert not missing, f"00_intro.ipynb: “What the book answers” has no row for {missing}"


@pytest.mark.parametrize("path", [*notebooks.numbered(), notebooks.TEMPLATE], ids=lambda path: path.name)
def test_a_chapter_goes_in_the_order_of_the_house(path):
    prose = [_prose(cell.source) for _, cell in cells(path, "markdown")]
    headings = [line for text in prose for line in re.findall(r"^###? .+$", text, re.M)]
    order = ["## The question", "## What this does not show", "## Exercises", "## Check yourself", "## Further reading"]
    assert [line for line in headings if line in order] == order
    exercises = sum(bool(re.match(r"### Exercise \d\b", line)) for line in headings)
    assert exercises >= (2 if path == notebooks.TEMPLATE else 3), f"{path.name}: {exercises} exercises, at least 3"
    drawn = [re.search(rf"^({'|'.join(DRAGGED)})\(", cell.source, re.M) for _, cell in cells(path, "code")]
    assert any(drawn), f"{path.name}: nothing to drag; show one of {', '.join(DRAGGED)}"


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.name)
def test_nothing_of_the_template_is_left(path):
    """Its sentences in italics, and its labels."""
    template = "\n".join(cell.source for _, cell in cells(notebooks.TEMPLATE, "markdown"))
    marks = [*re.findall(r"(?<!\*)\*[^*\n]{20,}\*", template), *re.findall(r"^\$\$ (\(.+\))$", template, re.M)]
    assert len(marks) > 5
    text = "\n".join(cell.source for _, cell in cells(path))
    left = [mark for mark in marks if mark in text]
    assert not left, f"{path.name}: replace what chapters/_template.ipynb left: {left}"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
class TestChapter:
    def test_is_a_valid_notebook(self, path):
        nbformat.validate(notebooks.read(path))

    def test_is_stored_in_the_normal_form(self, path):
        text = path.read_text(encoding="utf-8")
        normal = notebooks.dumps(notebooks.normal(notebooks.read(path)))
        if text != normal:
            lines = enumerate(zip(text.split("\n"), normal.split("\n"), strict=False), start=1)
            first = next((f"line {n} is {a!r}, normally {b!r}" for n, (a, b) in lines if a != b), "one is longer")
            pytest.fail(f"{path.name}: not in the normal form ({first}); {REMEDY}", pytrace=False)

    def test_stores_only_text(self, path):
        for where, cell in cells(path, "code"):
            for output in cell.outputs:
                assert output.output_type != "error", f"{where}: an error is stored; mend the cell and {REMEDY}"
                assert output.get("name") != "stderr", f"{where}: stderr is stored; remove its cause and {REMEDY}"
                kinds = set(output.get("data", {})) - {"text/plain"}
                assert not kinds, f"{where}: {', '.join(sorted(kinds))} is stored; {REMEDY}"

    def test_holds_nothing_that_differs_from_run_to_run(self, path):
        for where, cell in cells(path, "code"):
            address = re.search(r"\bat 0x[0-9a-f]{6,}", str(cell.outputs))
            assert not address, f"{where}: prints a memory address; print what the object holds"

    def test_opens_with_a_title(self, path):
        where, first = next(cells(path))
        assert first.cell_type == "markdown", f"{where}: must be markdown and hold the title"
        assert re.match(r"# \S", first.source), f"{where}: must open with a title, `# …`"
        others = [w for w, cell in list(cells(path, "markdown"))[1:] if re.search(r"^# ", _prose(cell.source), re.M)]
        assert not others, f"{others}: a chapter has one title; make these `## …`"

    def test_uses_known_tags(self, path):
        for where, cell in cells(path):
            unknown = set(cell.metadata.get("tags", [])) - TAGS
            assert not unknown, f"{where}: unknown tag {sorted(unknown)}; known are {sorted(TAGS)}"

    def test_switches_no_comparison_off_by_comment(self, path):
        for where, cell in cells(path, "code"):
            assert "NBVAL" not in cell.source, f"{where}: exempt it by the tag {notebooks.VOLATILE!r}, which tests list"

    def test_draws_through_plots_show(self, path):
        for where, cell in cells(path, "code"):
            bare = re.search(r"\b(plt|pyplot)\b|%matplotlib|savefig", cell.source)
            assert not bare, f"{where}: {bare and bare[0]!r}; draw with normlib.plots and plots.show(…, alt=…)"

    def test_pictures_in_prose_have_alternative_text(self, path):
        for where, cell in cells(path, "markdown"):
            prose = _prose(cell.source)
            assert not re.search(r"!\[\s*\]\(", prose), f"{where}: a picture without text, ![what it shows](…)"
            for image in re.findall(r"<img\b[^>]*>", prose):
                assert re.search(r"\balt=\"[^\"]+\"", image), f"{where}: {image} lacks alt"


def _prose(source):
    """Markdown without its fenced code, in which a # is a comment."""
    return re.sub(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", "", source, flags=re.M | re.S)


class TestNormalForm:
    @pytest.fixture
    def notebook(self):
        outputs = [
            v4.new_output("stream", name="stdout", text="a\n"),
            v4.new_output("stream", name="stdout", text="b\n"),
            v4.new_output("display_data", data={"text/plain": "Figure", "text/html": "<b>", "image/png": "AAAA"}),
            v4.new_output("execute_result", data={"text/plain": "3"}, execution_count=9),
        ]
        first, second = (
            v4.new_code_cell("1 + 2\n", outputs=outputs, execution_count=9, metadata={"collapsed": True}) for _ in "12"
        )
        timing = v4.new_code_cell("t", outputs=outputs[:1], metadata={"tags": [notebooks.VOLATILE]})
        widgets = {"widgets": {"application/vnd.jupyter.widget-state+json": {}}}
        return v4.new_notebook(cells=[first, second, timing, v4.new_code_cell(" ")], metadata=widgets)

    def test_keeps_text_and_nothing_else(self, notebook):
        first, second, timing = notebooks.normal(notebook).cells  # the empty cell is gone
        stream, figure, result = first.outputs
        assert stream.text == "a\nb\n"
        assert figure.data == {"text/plain": "Figure"}
        assert result.execution_count == first.execution_count == 1
        assert second.execution_count == 2
        assert first.metadata == {}
        assert timing.outputs == []
        assert timing.execution_count == 3

    def test_ids_come_from_content(self, notebook):
        once = notebooks.normal(notebook)
        for cell in notebook.cells:
            cell.id = f"x{cell.id}"
        again = notebooks.normal(notebook)
        assert [cell.id for cell in once.cells] == [cell.id for cell in again.cells]
        assert len({cell.id for cell in once.cells}) == 3

    def test_is_its_own_normal_form(self, notebook):
        once = notebooks.dumps(notebooks.normal(notebook))
        assert notebooks.dumps(notebooks.normal(nbformat.reads(once, as_version=4))) == once

    def test_leaves_its_argument_alone(self, notebook):
        before = nbformat.writes(notebook)
        notebooks.normal(notebook)
        assert nbformat.writes(notebook) == before


class TestExecution:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("import sys\nprint('oh', file=sys.stderr)", "wrote to stderr"),
            ("1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_a_bad_cell_is_named_and_nothing_is_stored(self, tmp_path, capsys, source, message):
        path = tmp_path / "bad.ipynb"
        path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])))
        before = path.read_bytes()
        assert notebooks.main([str(path)]) == 1
        error = capsys.readouterr().err
        assert "bad.ipynb" in error
        assert message in error
        assert path.read_bytes() == before

    def test_what_is_no_notebook_is_named(self, tmp_path, capsys):
        path = tmp_path / "half.ipynb"
        path.write_text('{"cells": [')
        assert notebooks.main([str(path)]) == 1
        assert "half.ipynb: not a notebook" in capsys.readouterr().err


def test_a_corrupted_chapter_is_named_before_any_runs(tmp_path):
    from tools import execute

    path = tmp_path / "half.ipynb"
    path.write_text('{"cells": [')
    with pytest.raises(notebooks.NotebookError, match=r"half\.ipynb: not a notebook .*restore it from git"):
        execute.execute([path], tmp_path / "cache", timeout=1)


def test_a_notebook_that_passes_is_kept_for_the_book(tmp_path):
    """And is not run again by `make book`; one with a cell that fails is not kept."""
    for name in ("conftest.py", "tools"):
        (shutil.copytree if (notebooks.ROOT / name).is_dir() else shutil.copy)(notebooks.ROOT / name, tmp_path / name)
    (tmp_path / "chapters").mkdir()
    for name, stored in (("good", "'good'"), ("bad", "'another'")):
        outputs = [
            v4.new_output("stream", text="here\n"),
            v4.new_output("execute_result", data={"text/plain": stored}, execution_count=1),
        ]
        cell = v4.new_code_cell(f"print('here')\n{name!r}", outputs=outputs, execution_count=1)
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell("Text."), cell])
        nbformat.write(notebook, tmp_path / "chapters" / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "chapters"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr

    cache = get_cache(str(tmp_path / "_build" / ".jupyter_cache"))
    assert cache.match_cache_notebook(notebooks.read(tmp_path / "chapters" / "good.ipynb"))
    with pytest.raises(KeyError):
        cache.match_cache_notebook(notebooks.read(tmp_path / "chapters" / "bad.ipynb"))
    (record,) = cache.list_cache_records()
    assert record.uri.endswith("good.ipynb")
    assert record.data["execution_seconds"] > 0
    kept = cache.get_cache_bundle(record.pk).nb
    nbformat.validate(kept)
    assert kept.cells[0].outputs == nbformat.read(tmp_path / "chapters" / "good.ipynb", 4).cells[1].outputs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("root: a\nchapters:\n- file: b\n", [("a", None), ("b", None)]),
        ("root: a\n", [("a", None)]),
        (
            "root: a\nparts:\n- chapters:\n  - file: b\n- numbered: true\n  chapters:\n  - file: c\n  - file: d\n",
            [("a", None), ("b", None), ("c", 1), ("d", 2)],
        ),
    ],
    ids=["chapters", "root alone", "parts"],
)
def test_the_table_of_contents_is_read_in_each_of_its_forms(tmp_path, text, expected):
    (tmp_path / "_toc.yml").write_text(text)
    assert toc.pages(tmp_path) == expected


@pytest.mark.parametrize("target", ["pdf", "figures"])
def test_what_is_made_of_the_book_builds_it_first(target):
    """A book that is already there may be an old one."""
    command = ["make", "--dry-run", target, "HTML=Makefile"]  # a file that exists
    done = subprocess.run(command, cwd=notebooks.ROOT, capture_output=True, text=True, check=True)
    assert "jupyter-book build" in done.stdout


def test_a_change_under_the_notebooks_is_noticed(tmp_path, monkeypatch):
    from tools import execute

    for name in ("normlib/layers/x.py", "data/runs/grid/1.json", "data/stored/x.csv", "requirements.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    prints = {execute.fingerprint(tmp_path)}
    for change in (
        lambda: (tmp_path / "normlib/layers/x.py").write_text("2"),
        lambda: (tmp_path / "data/runs/grid/1.json").write_text("2"),
        lambda: (tmp_path / "data/stored/x.csv").write_text("2"),
        lambda: (tmp_path / "requirements.txt").write_text("2"),
        lambda: shutil.move(tmp_path / "normlib/layers/x.py", tmp_path / "normlib/x.py"),
    ):
        change()
        prints.add(execute.fingerprint(tmp_path))
    assert len(prints) == 6
    (tmp_path / "normlib/notes.txt").write_text("beside the code")
    assert execute.fingerprint(tmp_path) in prints
    before = execute.fingerprint(tmp_path)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # other roundings
    assert execute.fingerprint(tmp_path) != before
