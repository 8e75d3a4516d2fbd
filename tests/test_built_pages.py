"""What is made of the written pages: formulas set, one style sheet, fonts of the letters in use."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from fontTools.ttLib import TTFont
from sphinx.errors import ExtensionError

sys.path.append(str(Path(__file__).resolve().parents[1] / "chapters" / "_ext"))
import bundle
import formulas
import small_batches

INLINE = '<span class="math notranslate nohighlight">\\(a_i &lt; b\\)</span>'
DISPLAY = (
    '<div class="math notranslate nohighlight" id="equation-e">\n<span class="eqno">(1)<a href="#e">#</a></span>'
    "\\[\\begin{split}a &amp;= b\\\\[2pt] c &amp;= \\sqrt{d}\\end{split}\\]</div>"
)


@pytest.fixture
def app(tmp_path):
    (tmp_path / "_static").mkdir()
    return SimpleNamespace(outdir=str(tmp_path), builder=SimpleNamespace(format="html"))


def build(app, **pages):
    for name, body in pages.items():
        (Path(app.outdir) / f"{name}.html").write_text(body, encoding="utf-8")
    formulas.set_formulas(app, None)
    return [(Path(app.outdir) / f"{name}.html").read_text(encoding="utf-8") for name in pages]


def test_formulas_are_set_with_their_number_and_for_screen_readers(app):
    (text,) = build(app, one=f"<p>{INLINE}</p>{DISPLAY}")
    assert text.count("<mjx-container") == text.count("<math ") == 2
    assert '<span class="eqno">(1)<a href="#e">#</a></span><mjx-container' in text
    assert 'id="equation-e"' in text
    assert "<mo>&lt;</mo>" in text
    assert "\\(" not in text
    css = (Path(app.outdir) / "_static" / "formulas.css").read_text(encoding="utf-8")
    assert "mjx-c221A" in css  # the root


def test_a_page_of_an_earlier_build_keeps_the_letters_of_its_formulas(app):
    (first,) = build(app, one=INLINE)
    again, _ = build(app, one=first, two=DISPLAY)
    assert again == first
    css = (Path(app.outdir) / "_static" / "formulas.css").read_text(encoding="utf-8")
    assert "mjx-c1D44E" in css  # a
    assert "mjx-c3C" in css  # <


@pytest.mark.parametrize("tex", [r"\nosuchmacro x", r"\frac{a}", r"\left( a"])
def test_a_formula_that_cannot_be_read_ends_the_build_with_its_source(app, tex):
    with pytest.raises(ExtensionError, match="cannot be set") as error:
        build(app, one=INLINE.replace("a_i &lt; b", tex))
    assert tex in str(error.value)


def test_a_formula_in_an_unknown_form_ends_the_build(app):
    with pytest.raises(ExtensionError, match=r"one\.html: a formula in a form"):
        build(app, one='<span class="math notranslate nohighlight">$a$</span>')


CSS = """
@charset "utf-8"; @import "more.css";
.used, .unused, p.used:not(.unused) > a { color: red; background: url(file.png) }
.unused, .used .unused { color: blue }
@media (min-width: 1px) { .unused { color: blue } .scripted::before { content: "\\221A" } }
@media print { .unused { color: blue } }
[data-theme="dark"] b { color: green }
"""


@pytest.fixture
def styled(app):
    folder = Path(app.outdir)
    (folder / "_static" / "styles").mkdir()
    (folder / "_static" / "styles" / "one.css").write_text(CSS, encoding="utf-8")
    (folder / "_static" / "styles" / "more.css").write_text("i { color: gray }", encoding="utf-8")
    (folder / "_static" / "two.css").write_text(
        f'@font-face {{ font-family: F; src: url("{formulas.FONTS / "MathJax_Main-Regular.woff"}") format("woff") }}',
        encoding="utf-8",
    )
    (folder / "_static" / "page.js").write_text('e.classList.add("scripted")', encoding="utf-8")
    (folder / "chapters").mkdir()
    head = '<link rel="stylesheet" href="../_static/styles/one.css?v=1" /><title>T</title>'
    page = folder / "chapters" / "page.html"
    page.write_text(f'{head}<link href="../_static/two.css" rel="stylesheet"><p class="used">', encoding="utf-8")
    bundle.bundle(app, None)
    return page


def sheet(page):
    name = page.read_text(encoding="utf-8").partition('href="../_static/')[2].partition('"')[0]
    return (page.parent.parent / "_static" / name).read_text(encoding="utf-8")


def test_a_page_has_one_style_sheet_with_the_rules_that_can_match(styled):
    assert styled.read_text(encoding="utf-8").count("<link") == 1
    css = sheet(styled)
    assert ".used,p.used:not(.unused) > a{" in css
    assert "blue" not in css
    assert css.index("i{color: gray}") < css.index(".used")
    assert ".scripted::before" in css  # a script may add it
    assert "green" in css
    assert 'url("styles/file.png")' in css
    assert "@media print" not in css  # nothing is left in it


def test_fonts_have_the_letters_that_style_sheets_name(styled):
    (font,) = (styled.parent.parent / "_static" / "fonts").iterdir()
    assert f'url("fonts/{font.name}")' in sheet(styled)
    assert set(TTFont(font).getBestCmap()) == {0x221A}


def test_a_second_build_takes_up_a_changed_style_sheet(app, styled):
    (styled.parent.parent / "_static" / "styles" / "more.css").write_text("i { color: pink }", encoding="utf-8")
    bundle.bundle(app, None)
    assert "pink" in sheet(styled)
    before = styled.read_text(encoding="utf-8")
    bundle.bundle(app, None)
    assert styled.read_text(encoding="utf-8") == before


def test_data_of_explorers_are_in_a_script_that_a_page_on_disk_can_load(styled, app):
    data = '<script type="application/json" class="nl-data">{"a":"\\u003c"}</script></figure>'
    body = "".join(f'<figure class="nl-interactive nl-{kind} x"><b>{kind}</b>{data}' for kind in ("quiz", "explorer"))
    styled.write_text(styled.read_text(encoding="utf-8") + body, encoding="utf-8")
    for _ in range(2):
        bundle.bundle(app, None)
        text = styled.read_text(encoding="utf-8")
        (script,) = (styled.parent.parent / "_static" / "data").iterdir()
        empty = f'<script type="application/json" class="nl-data" data-src="../_static/data/{script.name}"></script>'
        assert text.endswith(
            f"<b>quiz</b>{data}" + f'<figure class="nl-interactive nl-explorer x"><b>explorer</b>{empty}</figure>'
        )
        assert script.read_text(encoding="utf-8").endswith(f'["{script.name}"] = {{"a":"\\u003c"}};')


def test_tokens_that_look_like_text_are_those_of_names_and_punctuation():
    plain = set(small_batches._plain_tokens())
    assert {"n", "nn", "p", "w"} <= plain
    assert not plain & {"k", "o", "s2", "mi", "c1", "nf", "nb"}


def test_pages_are_mended_once_and_a_theme_that_measures_in_another_way_ends_the_build(app):
    script = Path(app.outdir) / "_static" / small_batches.SCRIPT
    script.parent.mkdir()
    script.write_text(f"q({small_batches.MEASURED})", encoding="utf-8")
    (script.parents[1] / "documentation_options.js").write_text("const A = '\\\\1';", encoding="utf-8")
    page = Path(app.outdir) / "page.html"
    page.write_text('<script src="_static/documentation_options.js?v=1"></script><p></p>', encoding="utf-8")
    for _ in range(2):  # a second build finds it mended
        small_batches.mend_pages(app, None)
    assert page.read_text(encoding="utf-8") == "<script>const A = '\\\\1';</script><p></p>"
    assert script.read_text(encoding="utf-8") == f"q({small_batches.UNMEASURED})"
    script.write_text("q()", encoding="utf-8")
    with pytest.raises(ExtensionError, match="measures boxes"):
        small_batches.mend_pages(app, None)


def test_a_drawing_becomes_a_file_that_its_page_shows_in_the_ink_of_either_theme(app):
    script = Path(app.outdir) / "_static" / small_batches.SCRIPT
    script.parent.mkdir()
    script.write_text(small_batches.UNMEASURED, encoding="utf-8")
    (script.parents[1] / "documentation_options.js").write_text("", encoding="utf-8")
    drawing = '<svg width="100%" viewBox="0 0 20.5 10" fill="currentColor" aria-hidden="true">\n<path d="M 0 0"/></svg>'
    other = '<svg width="100%" viewBox="0 0 2 1" aria-hidden="true"><path d="M 1 1"/></svg>'  # without ink of its own
    pages = Path(app.outdir) / "page.html", Path(app.outdir) / "chapters" / "page.html"
    pages[1].parent.mkdir()
    for page in pages:
        page.write_text(f"<p>{drawing}{other}</p>", encoding="utf-8")
    images = Path(app.outdir) / "_images"
    images.mkdir()
    stale, foreign = (images / f"drawing-{name}.svg" for name in (f"{0:012x}-dark", "of-a-reader"))
    for file in (stale, foreign):
        file.write_text("")
    for _ in range(2):
        small_batches.mend_pages(app, None)
        # one pair for both pages, and none that no page shows
        dark, light, kept = sorted(images.iterdir())
        assert kept == foreign
        for page, up in zip(pages, ("", "../"), strict=True):
            text = page.read_text(encoding="utf-8")
            assert re.findall('src="([^"]*)"', text) == [f"{up}_images/{file.name}" for file in (light, dark)]
            assert re.findall('(?:width|height)="([^"]*)"', text.replace(other, "")) == ["20", "10"] * 2
            assert [" hidden" in tag for tag in re.findall("<img[^>]*>", text)] == [False, True]
            assert text.endswith(f"{other}</p>")
    for file, theme in ((light, "light"), (dark, "dark")):
        root = ElementTree.parse(file).getroot()
        assert (root.get("color"), root.get("viewBox")) == (small_batches.INK[theme], "0 0 20.5 10")
        assert [child.tag.rpartition("}")[2] for child in root] == ["path"]
