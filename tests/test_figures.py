"""Pictures taken out of a page for slides."""

import xml.etree.ElementTree as ET

import pytest

from tools import figures

PANEL = '<svg width="100%" viewBox="0 0 {} 50" fill="currentColor" aria-hidden="true"><path d="M 0 0"/></svg>'


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "PAGES", tmp_path / "chapters")
    monkeypatch.setattr(figures, "TARGET", tmp_path / "figures")
    figures.PAGES.mkdir()
    label = 'role="img" aria-label="It&#x27;s a &lt; b"'
    (figures.PAGES / "01_x.html").write_text(
        f'<figure class="nl-figure"><div {label}>{PANEL.format(100)}{PANEL.format(60)}</div></figure>'
        '<figure class="nl-interactive nl-quiz"><ol></ol></figure>'
        f'<figure class="nl-interactive nl-explorer"><div class="nl-still" {label}>{PANEL.format(9)}</div></figure>'
    )


def test_each_picture_becomes_a_file_that_stands_alone(page, capsys):
    (figures.TARGET).mkdir()
    (figures.TARGET / "09_gone-01.svg").write_text("of an earlier book")
    assert figures.main() == 0
    assert sorted(path.name for path in figures.TARGET.iterdir()) == ["01_x-01.svg", "01_x-02.svg"]
    assert "2 figures" in capsys.readouterr().out
    drawing = ET.parse(figures.TARGET / "01_x-01.svg").getroot()
    assert drawing.attrib["viewBox"] == f"0 0 {100 + figures.GAP + 60} 50"
    title, first, second = drawing
    assert title.text == "It's a < b"
    assert (first.attrib["x"], second.attrib["x"]) == ("0", str(100 + figures.GAP))


def test_without_a_book_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "PAGES", tmp_path)
    assert figures.main() == 1
    assert "make book" in capsys.readouterr().err
