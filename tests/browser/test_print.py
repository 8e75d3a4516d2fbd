"""What paper shows of a page: figures and formulas, and nothing to press; and the PDF made of such pages."""

import io

import pytest
from pypdf import PdfReader
from test_book import HTML, PAGES, _built, visit  # noqa: F401  (_built skips or fails where there is no book)

from tools import pdf


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_paper_has_figures_and_formulas_and_no_controls(page_factory, path):
    page = visit(page_factory(), path)
    page.evaluate("() => { for (const fold of document.querySelectorAll('details:not(.hide)')) fold.open = true }")
    figures = page.locator(".bd-article figure.nl-figure svg").count()
    formulas = page.locator(".bd-article mjx-container").count()
    page.emulate_media(media="print")
    visible = """(selector) => [...document.querySelectorAll(selector)]
      .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().height > 0)
      .map((e) => e.outerHTML.slice(0, 100))"""
    controls = "button, input, select, .bd-header, .bd-header-article, .bd-sidebar, .prev-next-footer, .headerlink"
    assert page.evaluate(visible, controls) == []
    assert len(page.evaluate(visible, ".bd-article figure.nl-figure svg")) == figures
    assert len(page.evaluate(visible, ".bd-article mjx-container")) >= formulas  # with those of still pictures
    interactive = page.locator(".bd-article figure.nl-interactive").count()
    assert len(page.evaluate(visible, ".bd-article figure.nl-interactive .nl-still")) == interactive


def test_a_page_of_the_pdf(browser):
    path = HTML / "chapters" / "references.html"
    title, content = pdf.printed(browser, path, before=41)
    sheets = PdfReader(io.BytesIO(content))
    assert title == "References"
    assert sheets.outline
    assert sheets.outline[0].title == "References"
    text = "".join(sheet.extract_text() for sheet in sheets.pages)
    assert "Batch normalization: accelerating deep network training" in " ".join(text.split())
    assert "42" in sheets.pages[0].extract_text().split()  # its number
    links = [
        note.get_object()["/A"].get("/URI", "")
        for sheet in sheets.pages
        for note in sheet.get("/Annots", [])
        if "/A" in note.get_object()
    ]
    assert not [link for link in links if link.startswith("file:")]


def test_the_pdf_follows_the_table_of_contents():
    pages = pdf.pages()
    assert pages[0].stem == "00_intro"
    assert {path.stem for path in pages} == {path.stem for path in PAGES}


def test_without_a_book_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pdf, "HTML", tmp_path)
    assert pdf.main() == 1
    assert "make book" in capsys.readouterr().err
