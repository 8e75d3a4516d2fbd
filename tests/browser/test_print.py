"""What paper shows of a page: figures and formulas, and nothing to press; and the PDF made of such pages."""

import io

from pypdf import PdfReader
from test_book import HTML, PAGES, _built, visit  # noqa: F401  (_built skips or fails where there is no book)

from tools import pdf


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


def test_formulas_are_printed_in_their_own_fonts(browser):
    _, content = pdf.printed(browser, HTML / "chapters" / "02_batch_normalization.html", before=0)
    drawn = [
        font.get_object()
        for sheet in PdfReader(io.BytesIO(content)).pages
        for font in sheet["/Resources"].get("/Font", {}).values()
    ]
    names = [font["/FontDescriptor"].get("/FontName", "") for font in drawn if "/FontDescriptor" in font]
    fonts = {name.partition("+")[2].partition("-")[0] for name in names}
    assert {"MathJax_Main", "MathJax_Math"} <= fonts


def test_the_pdf_follows_the_table_of_contents():
    pages = pdf.pages()
    assert pages[0].stem == "00_intro"
    assert {path.stem for path in pages} == {path.stem for path in PAGES}


def test_without_a_book_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pdf, "HTML", tmp_path)
    assert pdf.main() == 1
    assert "make book" in capsys.readouterr().err
