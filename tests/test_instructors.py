"""The instructor's page: what it names is in the chapters."""

import re
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
PAGE = (CHAPTERS / "instructors.md").read_text(encoding="utf-8")


def text(number):
    (path,) = CHAPTERS.glob(f"{number}_*.ipynb")
    return path.read_text(encoding="utf-8")


def test_every_figure_has_its_title_in_its_chapter():
    figures = re.findall(r"^\| ([^|]+) \((0\d)\) \|", PAGE, re.MULTILINE)
    assert {number for _, number in figures} == {f"0{n}" for n in range(1, 10)}
    missing = [title for title, number in figures if title not in text(number)]
    assert not missing, f"no figure of this title: {missing}"


def test_every_quoted_section_exists():
    everything = "".join(path.read_text(encoding="utf-8") for path in CHAPTERS.glob("0*.ipynb"))
    quoted = re.findall(r"“([^”]+)”", PAGE)
    assert quoted
    missing = [heading for heading in quoted if f"# {heading}\\n" not in everything]
    assert not missing, f"no section of this heading: {missing}"
