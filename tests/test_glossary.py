"""The glossary and the notation table are led to from the text, once a page for each entry."""

import re
from collections import Counter

import pytest

from tools.plain import Book, _entries, _options, _titled

BOOK = Book()
INTRO = BOOK.pages["00_intro"]
CHAPTERS = [page for page in BOOK.pages.values() if page.number]
TEXTS = {
    name: "\n".join(cell.source for cell in BOOK.cells(page) if cell.cell_type == "markdown")
    for name, page in BOOK.pages.items()
}
(GLOSSARY,) = (t.content for t in BOOK.blocks(TEXTS["00_intro"]) if t.info == "{glossary}")
ENTRIES = [terms for terms, _ in _entries(_options(GLOSSARY)[1])]
TERMS = {
    name: Counter(_titled(" ".join(body.split()))[1] for body in re.findall(r"\{term\}`([^`]+)`", text))
    for name, text in TEXTS.items()
}


def test_entries_are_in_alphabetical_order():
    terms = [terms[0] for terms in ENTRIES]
    assert terms == sorted(terms, key=str.casefold)


def test_every_entry_is_linked_from_a_page_that_uses_it():
    linked = {term for name, terms in TERMS.items() if name != "00_intro" for term in terms}
    lost = [terms for terms in ENTRIES if not linked & set(terms)]
    assert not lost, f"no page links these; link the first use with {{term}}, or drop the entry: {lost}"


@pytest.mark.parametrize("name", TERMS)
def test_a_page_links_entries_that_exist_and_each_once(name):
    unknown = [term for term in TERMS[name] if term not in BOOK.terms]
    assert not unknown, f"{name}: in no glossary, letter for letter: {unknown}"
    symbols = Counter(re.findall(r"\]\(#(notation[\w-]*)\)", TEXTS[name]))
    often = [what for what, times in (TERMS[name] + symbols).items() if times > 1]
    assert not often, f"{name}: linked more than once: {often}; the first use is enough"


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.file)
def test_a_chapter_opens_with_a_link_to_the_notation(page):
    opening = next(cell.source for cell in BOOK.cells(page) if cell.cell_type == "markdown")
    assert "](#notation)" in opening, f"{page.file}: no **Symbols** [the book's notation](#notation) in its header"


def test_a_symbol_that_a_page_links_has_its_row():
    rows = {label for label, page in BOOK.targets.items() if page == INTRO}
    links = {label for text in TEXTS.values() for label in re.findall(r"\]\(#(notation[\w-]*)\)", text)}
    assert links <= rows, f"no row of the notation table is called {sorted(links - rows)}"


@pytest.mark.parametrize("name", TEXTS)
def test_a_link_has_a_name_beside_formulas(name):
    bare = re.findall(r"\[(?:\$[^$\]]*\$\s*)+\]\([^)]*\)", TEXTS[name])
    assert not bare, f"{name}: a screen reader finds no name in a formula; put a word into the link: {bare}"
