"""Notebooks as they are published: no MyST in them, outputs that every front end shows, a first cell that works."""

import base64
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
import vl_convert
from bs4 import BeautifulSoup

from normlib import plots
from normlib.cube import AxisCube
from normlib.design import DesignSpace
from normlib.explorer import Explorer
from normlib.guide import Guide
from normlib.interactive import KINDS
from normlib.questions import QUESTIONS
from normlib.quiz import Quiz
from tools import publish
from tools.plain import NOT_PUBLISHED, Book, Converter, PublishError

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
# What only Sphinx reads: the tokens of MyST-Parser, and text that looks like a piece of MyST.
MYST = {"myst_target", "myst_role", "myst_line_comment", "colon_fence", "math_block_label", "amsmath", "dl_open"}
MYST |= {"footnote_ref", "footnote_reference_open", "substitution_inline", "substitution_block", "span_open"}
CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
LOOKS_RAW = re.compile(r"\{[a-z][\w:-]*\}`|^ *(:::|```\{)|^\(\S+\)=|\{\{|\[\^|\]\{", re.M)


@pytest.fixture(scope="module")
def book():
    return Book()


PAGES = [page for page in Book().pages.values() if page.name not in NOT_PUBLISHED]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)


def converted(book, page):
    convert = Converter(book, page)
    for number, cell in enumerate(book.cells(page), start=1):
        if cell.cell_type == "markdown":
            where = f"{page.file}, cell {number}"
            yield where, cell.source, convert(cell.source, where)


@each_page
def test_nothing_that_only_sphinx_reads_is_left(book, page):
    for where, _, text in converted(book, page):
        tokens = list(book.parser.parse(text))
        kinds = {t.type for token in tokens for t in (token, *(token.children or []))}
        assert not kinds & MYST, f"{where}: {kinds & MYST}"
        prose = "\n".join(CODE.sub("", t.content) for t in tokens if t.type == "inline")
        assert not LOOKS_RAW.search(prose), f"{where}: {LOOKS_RAW.search(prose)[0]!r}"


@each_page
def test_every_formula_and_heading_survives(book, page):
    def parts(text):
        found = [t for token in book.blocks(text) for t in (token, *(token.children or []))]
        maths = {" ".join(t.content.split()) for t in found if t.type.startswith("math_") and t.content}
        return maths, [t.content for t, before in zip(found[1:], found, strict=False) if before.type == "heading_open"]

    for where, source, text in converted(book, page):
        (before, headings), (after, kept) = parts(source), parts(text)
        after = {re.sub(r" \\tag\{[\d.]+\}$", "", formula) for formula in after}
        lost = {formula for formula in before if formula not in after and formula not in text}
        assert not lost, f"{where}: {lost}"
        assert [h for h in kept if "{" not in h] == [h for h in headings if "{" not in h], where


def test_equations_have_the_numbers_of_the_built_pages(book):
    if not HTML.exists():
        pytest.skip("no book: run `make book`")
    shown = {}
    for path in HTML.glob("chapters/*.html"):
        pattern = r'id="equation-([\w-]+)"[^>]*>\s*<span class="eqno">\(([\d.]+)\)'
        shown |= dict(re.findall(pattern, path.read_text(encoding="utf-8")))
    assert {label.lower(): number for label, (_, number) in book.equations.items()} == shown


# ---- one piece of MyST at a time -------------------------------------------------------------------------------------

SAMPLE = {
    "_config.yml": "parse: {myst_enable_extensions: [amsmath, attrs_inline, colon_fence, deflist, dollarmath, "
    "substitution]}\n"
    "bibtex_bibfiles: [refs.bib]\nsphinx: {config: {myst_words_per_minute: 10}}\n",
    "_toc.yml": "root: one\nparts:\n- numbered: true\n  chapters:\n  - file: two\n  - file: three\n",
    "refs.bib": "@article{noether1918, author={Noether, Emmy}, title={Invariants}, journal={Nachr.}, "
    'year={1918}, url={https://example.org/n}}\n@book{abc, author={A, A. and B, B. and M{\\"u}ller, C.}, '
    "title={T}, publisher={P}, year={2000}}\n@book{undated, author={A}, title={T}}\n"
    "@book{nobody, title={T}, year={1}}\n",
    "one.md": "# One\n\n(place)=\n## There, $a<b$\n\n:::{table} Two `spots`\n:name: spot\n| a |\n|---|\n:::\n\n"
    "(bare)=\nText.\n\n"
    ":::{glossary}\nbatch\nlot\n    What is\n    averaged.\n\nmean\n    A sum.\n\n    Divided.\n:::",
    "two.md": "# Two\n\n| [$m$]{#size} |\n|---|\n\n$$\nx\n$$ (eq-x)\n\n:::{note}\n$$\ny\n$$ (eq-y)\n:::",
    "three.md": "# Three\n\n$$\nz\n$$ (eq-z)",
}


@pytest.fixture
def sample(tmp_path):
    for name, text in SAMPLE.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return Book(tmp_path)


@pytest.fixture
def convert(sample):
    return lambda text, page="two": Converter(sample, sample.pages[page])(text, f"{page}.md, cell 1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{eq}`eq-y` and {eq}`eq-z`", "(1.2) and [(2.1)](three.ipynb)"),
        ("as {cite}`noether1918` says", "as ([Noether, 1918](https://example.org/n)) says"),
        ("({cite}`abc`, p. 3)", "(A et al., 2000, p. 3)"),
        (
            "- {cite}`abc` and {cite}`noether1918`: why",
            "- A et al., 2000 and [Noether, 1918](https://example.org/n): why",
        ),
        ("{cite}`abc,\nnoether1918`", "(A et al., 2000; [Noether, 1918](https://example.org/n))"),
        ("{doc}`three`, {ref}`here <place>`", "[Three](three.ipynb), [here](one.ipynb#place)"),
        ("{ref}`place`, {ref}`spot`", "[There, $a\\lt b$](one.ipynb#place), [Two `spots`](one.ipynb#spot)"),
        ("{term}`lot`, {term}`the mean <mean>`", "[lot](one.ipynb#term-lot), [the mean](one.ipynb#term-mean)"),
        ("[$m$]{#size}, [samples](#size)", '<a name="size"></a>$m$, [samples](#size)'),
        (
            "[a](three.md), [b](#place), [c](https://x.org)",
            "[a](three.ipynb), [b](one.ipynb#place), [c](https://x.org)",
        ),
        ("`{eq}` and ``{cite}`x` `` in $\\{a\\}`b`$", "`{eq}` and ``{cite}`x` `` in $\\{a\\}`b`$"),
        ("$a<b$, $a < b$, $$c<d$$", "$a\\lt b$, $a < b$, $$c\\lt d$$"),
        ("$$\nx<y\n$$ (eq-x)", "$$\nx\\lt y\n\\tag{1.1}\n$$"),
        (":::{admonition} The *title*\na $x\n+y$\n\n- b\n:::", "> **The *title***\n>\n> a $x +y$\n>\n> - b"),
        ("```{tip}\nDo.\n```", "> **Tip**\n>\n> Do."),
        (
            ":::{note}\n$x\n+y$\n\n```sh\necho $a\necho $b\n```\n\n- ~~~\n  $c\n  $d\n  ~~~\n:::",
            "> **Note**\n>\n> $x +y$\n>\n> ```sh\n> echo $a\n> echo $b\n> ```\n>\n> - ~~~\n>   $c\n>   $d\n>   ~~~",
        ),
        (
            ":::{dropdown} Why `x` < y?\n:open:\nSee {eq}`eq-x`.\n:::",
            "<details>\n<summary>Why <code>x</code> &lt; y?</summary>\n\nSee (1.1).\n\n</details>",
        ),
        (
            "::::{exercise} E\n:::{solution} S\nx\n:::\n::::",
            "**Exercise: E**\n\n<details>\n<summary>S</summary>\n\nx\n\n</details>",
        ),
        ("- a\n\n  :::{note}\n  b\n  :::\n- c", "- a\n\n  > **Note**\n  >\n  > b\n- c"),
        (
            "a[^n] b[^m] c[^n]\n\n[^m]: M\n\n[^n]: N",
            "a<sup>1</sup> b<sup>2</sup> c<sup>1</sup>\n\n<sup>2</sup> M\n\n<sup>1</sup> N",
        ),
        ("```python\n{eq}`x` # (a)=\n```", "```python\n{eq}`x` # (a)=\n```"),
        ("a\n% remark\n\nb", "a\n\nb"),
        ("(spot)=\n# H", '<a name="spot"></a>\n\n# H'),
        ("| a |\n|---|\n| {eq}`eq-x` |", "| a |\n|---|\n| (1.1) |"),
    ],
)
def test_a_piece_of_myst_becomes_plain(convert, text, expected):
    assert convert(text) == expected


def test_a_glossary_becomes_a_list(convert):
    text = ":::{glossary}" + SAMPLE["one.md"].partition(":::{glossary}")[2]
    assert convert(text, "one") == (
        '- <a name="term-batch"></a><a name="term-lot"></a>**batch, lot**: What is\n  averaged.\n'
        '- <a name="term-mean"></a>**mean**: A sum.\n\n  Divided.'
    )
    assert convert("{term}`means <mean>`", "one") == "[means](#term-mean)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{cite}`nobody2000`", "two.md, cell 1: citation of 'nobody2000', which has no entry; add it"),
        ("```{mermaid}\nx\n```", r"two.md, cell 1: directive \{mermaid\} has no form .*; write it otherwise"),
        ("{kbd}`x`", r"two.md, cell 1: role \{kbd\}`x` has no form .*; write it otherwise"),
        ("{eq}`eq-none`", "two.md, cell 1: equation 'eq-none' does not exist; mend"),
        ("{term}`none`", "two.md, cell 1: term 'none' is in no glossary; add it"),
        ("[x](four.md)", "two.md, cell 1: link to 'four.md', which is not published; name"),
        ("[x](#nowhere)", "two.md, cell 1: link to #nowhere, which no label defines; put"),
        ("![x](a.png)", "two.md, cell 1: picture 'a.png' .*; draw it"),
        ("\\begin{align}\nx\n\\end{align}", "two.md, cell 1: an environment outside .*; put it"),
        ("a\n: b", "two.md, cell 1: dl_open .*; write it out, or as a list"),
        ("[x]{.large}", r"two.md, cell 1: attributes \{.large\} are Sphinx's alone; give"),
        ("{{ x }}", "two.md, cell 1: substitution.*; write it out"),
        ("[](three.md)", "two.md, cell 1: link to 'three.ipynb' without text, .*; give it one"),
        ("[x][r]\n\n[r]: three.md", "two.md, cell 1: address 'three.md', which leads nowhere .*; write a link as"),
        ("[x]( three.md )", "two.md, cell 1: address 'three.md', which"),
        ("<project:three.md>", "two.md, cell 1: address 'project:three.md', which"),
        ("![x][r]\n\n[r]: a.png", "two.md, cell 1: address 'a.png', .* draw a picture in a code cell"),
        ('<img src="a.png">', "two.md, cell 1: address 'a.png', which"),
        ("Text <img alt='x' src='a.png'>", "two.md, cell 1: address 'a.png', which"),
        ('| a |\n|---|\n| <a href="three.md">x</a> |', "two.md, cell 1: address 'three.md', which"),
        ("{ref}`bare`", "two.md, cell 1: reference to 'bare', which stands before no heading; write"),
        ("{cite}`undated`", "two.md, cell 1: citation of 'undated', which has no year; add it to the bibliography"),
        ("{cite}`nobody`", "two.md, cell 1: citation of 'nobody', which has no author or editor; add it"),
    ],
)
def test_what_has_no_plain_form_is_named(convert, text, message):
    with pytest.raises(PublishError, match=message):
        convert(text)


def test_a_corrupted_notebook_is_named(tmp_path):
    for name, text in SAMPLE.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "two.ipynb").write_text('{"cells": [')
    with pytest.raises(PublishError, match=r"two\.ipynb: not a notebook .*restore it"):
        Book(tmp_path)


def test_a_label_defined_twice_is_named(tmp_path):
    for name, text in SAMPLE.items():
        (tmp_path / name).write_text(text.replace("eq-z", "eq-x"), encoding="utf-8")
    with pytest.raises(PublishError, match=r"three\.md: label 'eq-x' is defined twice"):
        Book(tmp_path)


# ---- outputs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explorer():
    line = lambda m: {"a": ([0.0, 1.0], [0.0, float(m)])}  # noqa: E731
    texts = {"title": "A </script> line", "x_label": "x", "y_label": "y", "alt": "A line that turns."}
    return Explorer(line, sliders={"m": [1, 2, 4]}, **texts)


def bundle(figure):
    """The outputs as a kernel would send them, pictures as text."""
    data = figure._repr_mimebundle_()
    if isinstance(data.get("image/png"), bytes):
        data["image/png"] = base64.b64encode(data["image/png"]).decode()
    return nbformat.v4.new_output("execute_result", data=data, execution_count=7)


def published(book, page, *outputs, source="figure", tags=()):
    metadata = {"tags": list(tags)} if tags else {}
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\nAs {cite}`ioffe2015batch` say.", id="a"),
        nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=7, metadata=metadata, id="b"),
    ]
    return publish.publish(page, nbformat.v4.new_notebook(cells=cells), book, "https://github.com/o/r")


def test_a_notebook_opens_with_the_setup_cell_and_closes_with_its_references(book):
    notebook = published(book, PAGES[2], tags=["hide-input"])
    setup, title, code, references = notebook.cells
    assert setup.metadata.tags == ["setup"]
    assert "https://github.com/o/r" in setup.source
    assert "ADDRESS" not in setup.source
    link = f"https://colab.research.google.com/github/o/r/blob/published/chapters/{PAGES[2].file}"
    assert title.source.startswith(f"# Title\n\n[Open this notebook in Colab]({link})\n")
    assert code.metadata == {"tags": ["hide-input"], "cellView": "form", "jupyter": {"source_hidden": True}}
    assert references.source.startswith("## References\n\n- Sergey Ioffe and Christian Szegedy. Batch normalization")
    assert "metadata" in notebook
    assert "widgets" not in notebook.metadata


def test_a_picture_is_stored_as_png_with_its_text_and_caption(book):
    ax = plots.panels()
    ax.plot([0, 1], [0, 1])
    ax.set(xlabel="x", ylabel="y")
    notebook = published(book, PAGES[1], bundle(plots.show(ax, alt="A line & more", caption="Five seeds.")))
    picture, caption = notebook.cells[2].outputs
    assert set(picture.data) == {"image/png", "text/plain"}
    assert picture.metadata["image/png"]["alt"] == "A line & more"
    assert caption.data["text/markdown"] == "*Five seeds.*"


@pytest.mark.parametrize("kind", KINDS)
def test_an_interactive_figure_carries_its_script_and_its_still_form(book, explorer, kind):
    quiz = lambda: Quiz("03_noise_and_batch_size")  # noqa: E731
    make = {"explorer": lambda: explorer, "cube": AxisCube, "guide": Guide, "design": DesignSpace, "quiz": quiz}[kind]
    figure = make()
    (output,) = published(book, PAGES[1], bundle(figure)).cells[2].outputs
    markup = output.data["text/html"]
    visible, _, script = markup.partition("<script>")
    if "image/png" in output.data:  # the picture shows the still form, not what the live drawing starts with
        page = BeautifulSoup(figure._repr_mimebundle_()["text/html"], "html.parser")
        shown = BeautifulSoup(visible, "html.parser").img["alt"]
        assert shown == page.find(class_="nl-still")["aria-label"] != page.find(role="img")["aria-label"]
    assert "<input" not in visible  # a front end that drops scripts shows no dead controls
    assert ("<img src=" in visible) == ("image/png" in output.data)
    assert "alt=" in visible or "<dt>" in visible or "<ol" in visible
    assert script.count("</script>") == 1
    values = json.loads(re.search(r"^\}\)\((\{.*\}), function \(\) \{$", script, re.M)[1])
    assert values["vega"] == publish.VEGA
    assert "nl-interactive" in values["figure"]
    embedded = BeautifulSoup(values["figure"], "html.parser").find(class_="nl-data")
    for part in (visible, values["figure"], str(json.loads(embedded.string))):
        assert not re.search(r"""<a href=\\?["']([\w-]+\.html|#)""", part)
    if kind == "quiz":  # where an answer leads is still said
        section = QUESTIONS["03_noise_and_batch_size"][0].answers[0].section
        assert f"(“{section}”)" in embedded.string
    # Nothing is asked of the network but Vega.
    assert set(re.findall(r"https?://[\w./@-]+", script)) <= {publish.VEGA["address"], "http://www.w3.org/2000/svg"}


def test_the_built_book_is_published_whole(tmp_path, monkeypatch, capsys):
    if not HTML.exists():
        pytest.skip("no book: run `make book`")
    monkeypatch.setattr(publish, "OUT", tmp_path / "published")
    monkeypatch.setattr(publish, "DOWNLOADS", tmp_path / "downloads")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / PAGES[1].file).write_text("the sources, which Sphinx copies")
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/o/r")
    publish.main()
    files = sorted((tmp_path / "published").iterdir())
    assert [file.name for file in files] == sorted(page.file for page in PAGES)
    for file in files:
        notebook = nbformat.read(file, as_version=4)
        assert notebook.cells[0].metadata.tags == ["setup"]
        ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
        assert ran or not file.name[0].isdigit(), f"{file.name} has no output"
        assert not re.search(r'a href=\\*"#', file.read_text(encoding="utf-8")), f"{file.name}: a link within the page"
    assert f"{len(PAGES)} notebooks" in capsys.readouterr().out
    (download,) = (tmp_path / "downloads").iterdir()
    assert download.read_bytes() == (tmp_path / "published" / PAGES[1].file).read_bytes()
    # The table of times, as the page has it.
    page = BeautifulSoup((HTML / "chapters" / "00_intro.html").read_text(encoding="utf-8"), "html.parser")
    rows = [[cell.get_text().strip() for cell in row.find_all(["th", "td"])] for row in page.select(".nl-times tr")]
    intro = (tmp_path / "published" / "00_intro.ipynb").read_text(encoding="utf-8")
    assert rows
    for title, minutes, seconds in rows:
        assert re.search(rf"\| \[?{re.escape(title)}(\]\(\w+\.ipynb\))? \| {minutes} \| {seconds} \|", intro), title


def test_vega_is_the_version_that_the_book_serves():
    assert vl_convert.get_vega_version() == publish.VEGA_VERSION, "set VEGA_VERSION and the hash in tools/publish.py"
    assert re.fullmatch(r"sha384-[A-Za-z0-9+/]{64}", publish.VEGA["integrity"])


def test_links_in_a_cells_markdown_lead_to_notebooks(book):
    data = {"text/markdown": "[x](03_noise_and_batch_size.ipynb), {eq}`bn-forward`", "text/plain": "x"}
    output = nbformat.v4.new_output("display_data", data=data)
    (output,) = published(book, PAGES[2], output).cells[2].outputs
    assert output.data["text/markdown"] == "[x](03_noise_and_batch_size.ipynb), (2.1)"


@pytest.mark.parametrize(
    "output",
    [
        nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[]),
        nbformat.v4.new_output("stream", name="stderr", text="oh"),
    ],
    ids=["error", "stderr"],
)
def test_an_error_is_not_published(book, output):
    with pytest.raises(PublishError, match=r"cell 2 \('figure'\): an error or stderr .*run `make book`"):
        published(book, PAGES[1], output)


def test_a_figure_that_is_not_the_books_is_left_as_it_is(book):
    data = {"text/html": "<figure>x</figure>", "text/plain": "x"}
    (output,) = published(book, PAGES[1], nbformat.v4.new_output("display_data", data=data)).cells[2].outputs
    assert output.data == data


def test_a_picture_without_text_is_named(book):
    data = {"text/html": '<figure class="nl-interactive nl-cube"><div class="nl-still"></div></figure>'}
    output = nbformat.v4.new_output("display_data", data=data | {"image/png": "AAAA"})
    with pytest.raises(PublishError, match=r"cell 2 \('figure'\): the picture of an nl-cube has no text; give its"):
        published(book, PAGES[1], output)


# ---- the first cell --------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "origin"
    (folder / "normlib" / "layers").mkdir(parents=True)
    (folder / "normlib" / "__init__.py").write_text("")
    (folder / "normlib" / "layers" / "__init__.py").write_text("")
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q", "-b", "published"], ["add", "."], [*author, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def first_cell(folder, address, times=1, name="book", before=""):
    """Runs it where normlib is not installed, as it would be on Colab; the finished process."""
    source = publish.setup_cell(f"https://github.com/o/{name}" if address else "").source
    # -S leaves out the site-packages that the tests' own normlib is installed in.
    program = "\n".join([before] + [source] * times)
    folder.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    if address:
        environment["NORMLIB_REPOSITORY"] = address
    command = [sys.executable, "-S", "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_first_cell_clones_once_and_may_be_run_again(tmp_path, repository):
    content = tmp_path / "content"
    (content / "book-clone.part").mkdir(parents=True)  # left by a clone that was cut off
    done = first_cell(content, repository.as_uri(), times=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"normlib is at {content / 'book-clone' / 'normlib'}\n" * 2
    repository.rename(tmp_path / "away")  # a later session of the same machine needs no network
    assert first_cell(content, repository.as_uri()).returncode == 0
    assert not (content / "book-clone.part").exists()


def test_the_first_cell_uses_the_clone_that_it_lies_in(tmp_path, repository):
    done = first_cell(repository / "chapters", "file:///nowhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"normlib is at {repository / 'normlib'}\n"


@pytest.mark.parametrize(
    ("address", "message"),
    [("file:///nowhere/at/all", "file:///nowhere/at/all could not be cloned"), ("", "run `pip install .`")],
)
def test_the_first_cell_says_what_is_missing(tmp_path, address, message):
    done = first_cell(tmp_path / "content", address)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "content" / "book-clone").exists()


def test_the_first_cell_takes_no_mere_folder_for_the_package(tmp_path, repository):
    content = tmp_path / "content"
    (content / "normlib").mkdir(parents=True)
    done = first_cell(content, repository.as_uri(), before="import normlib")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"normlib is at {content / 'book-clone' / 'normlib'}\n"


def test_the_first_cell_may_follow_a_restart_whatever_the_repository_is_called(tmp_path, repository):
    content = tmp_path / "content"
    for _ in range(2):
        done = first_cell(content, repository.as_uri(), name="normlib")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"normlib is at {content / 'normlib-clone' / 'normlib'}\n"


def test_the_first_cell_says_what_is_in_its_way(tmp_path, repository):
    folder = tmp_path / "content" / "book-clone"
    folder.mkdir(parents=True)
    done = first_cell(tmp_path / "content", repository.as_uri())
    assert done.returncode == 1
    assert f"{folder} is no clone of the book: rename it, then run this cell again" in done.stderr


# ---- the repository's address ----------------------------------------------------------------------------------------


@pytest.fixture
def address(monkeypatch, tmp_path):
    def read(config="", environment=""):
        (tmp_path / "_config.yml").write_text(f'repository:\n  url: "{config}"\n')
        monkeypatch.setenv("REPOSITORY_URL", environment)
        return publish.repository.address(tmp_path)

    return read


def test_the_environment_overrides_the_address(address):
    assert address() == ""
    assert address("https://github.com/a/b") == "https://github.com/a/b"
    assert address("https://github.com/a/b", "https://github.com/c/d.e") == "https://github.com/c/d.e"


def test_without_an_entry_there_is_no_address(monkeypatch, tmp_path):
    (tmp_path / "_config.yml").write_text("title: A book\n")
    monkeypatch.delenv("REPOSITORY_URL", raising=False)
    assert publish.repository.address(tmp_path) == ""


@pytest.mark.parametrize("url", ["a/b", "https://github.com/a", "https://github.com/a/b.git", "https://x.org/a/b"])
def test_an_address_that_colab_cannot_open_is_refused(address, url):
    with pytest.raises(ValueError, match=r"REPOSITORY_URL must be https://github.com/OWNER/NAME or empty, got"):
        address("", url)
    with pytest.raises(ValueError, match=r"_config.yml"):
        address(url)


@pytest.mark.parametrize("url", ["", "https://github.com/someone/small-batches"])
def test_buttons_lead_to_the_address_or_are_not_there(tmp_path, url):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T", id="a")])
    (source / "index.ipynb").write_text(nbformat.writes(notebook))
    (source / "page.md").write_text("---\norphan: true\n---\n# P\n")
    (source / "conf.py").write_text(
        textwrap.dedent(f"""\
            import sys
            sys.path.append({str(ROOT / "chapters" / "_ext")!r})
            extensions = ["myst_nb", "sphinx_book_theme", "repository"]
            html_theme = "sphinx_book_theme"
            nb_execution_mode = "off"
            """)
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(source), str(out)]
    environment = {**os.environ, "REPOSITORY_URL": url}
    subprocess.run(command, env=environment, check=True)
    links = {
        name: set(re.findall(r'href="(https://(?:github|colab)[^"]+)"', (out / f"{name}.html").read_text()))
        for name in ("index", "page")
    }
    if not url:
        assert links == {"index": set(), "page": set()}
        return
    colab = "https://colab.research.google.com/github/someone/small-batches/blob/published/index.ipynb"
    assert colab in links["index"]
    assert colab.replace("index", "page") not in links["page"]
    for found in links.values():
        assert url in found
        assert any(link.startswith(f"{url}/issues/new") for link in found)
        assert all(link.startswith((url, colab)) for link in found)
