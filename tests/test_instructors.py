"""The instructor's page: what it names is in the chapters."""

import re

from tools import notebooks

PAGE = (notebooks.CHAPTERS / "instructors.md").read_text(encoding="utf-8")
TEXTS = {path.name[:2]: path.read_text(encoding="utf-8") for path in notebooks.numbered()}


def test_every_figure_has_its_title_in_its_chapter():
    figures = re.findall(r"^\| ([^|]+) \((\d\d)\) \|", PAGE, re.MULTILINE)
    assert {number for _, number in figures} == set(TEXTS)
    missing = [title for title, number in figures if title not in TEXTS[number]]
    assert not missing, f"no figure of this title: {missing}"


def test_every_quoted_section_exists():
    everything = "".join(TEXTS.values())
    quoted = re.findall(r"“([^”]+)”", PAGE)
    assert quoted
    missing = [heading for heading in quoted if f"# {heading}\\n" not in everything]
    assert not missing, f"no section of this heading: {missing}"
