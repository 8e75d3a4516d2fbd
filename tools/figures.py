"""Writes every picture of the built book as an SVG file, for slides: `make figures`, into _build/figures.

A figure is CHAPTER-NN.svg, counted from 1 down the page, its panels side by side, its alternative text as its title. Of
an interactive figure that is the still picture that print shows. Ink is black: place it on white, or change the color
that the file's first element sets.
"""

import re
import sys
from html import unescape
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "_build" / "html" / "chapters"
TARGET = ROOT / "_build" / "figures"
FIGURE = re.compile(r'<figure class="nl-(?:figure|interactive)\b.*?</figure>', re.S)
PICTURE = re.compile(r'<svg width="100%" viewBox="0 0 ([\d.]+) ([\d.]+)".*?</svg>', re.S)
GAP = 12  # between panels, in the drawing's points


def svg(figure: str) -> str | None:
    """A figure of a page as the text of an SVG file; None where it holds no picture."""
    panels = list(PICTURE.finditer(figure))
    if not panels:
        return None
    title = escape(unescape(re.search(r'aria-label="([^"]*)"', figure)[1]))
    left, placed = 0.0, ""
    for panel in panels:
        width, height = float(panel[1]), float(panel[2])
        start = f'<svg x="{left:g}" width="{width:g}" height="{height:g}"'
        placed += panel[0].replace('<svg width="100%"', start, 1)
        left += width + GAP
    width, height = left - GAP, max(float(panel[2]) for panel in panels)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">'
        f"<title>{title}</title>{placed}</svg>\n"
    )


def main() -> int:
    """Returns the exit status: 1 where there is no book to take pictures from."""
    pages = sorted(PAGES.glob("*.html"))
    if not pages:
        print(f"no page in {PAGES}; run `make book` first", file=sys.stderr)
        return 1
    TARGET.mkdir(exist_ok=True)
    for old in TARGET.glob("*.svg"):
        old.unlink()
    count = 0
    for page in pages:
        drawings = filter(None, map(svg, FIGURE.findall(page.read_text(encoding="utf-8"))))
        for number, drawing in enumerate(drawings, start=1):
            (TARGET / f"{page.stem}-{number:02}.svg").write_text(drawing, encoding="utf-8")
            count += 1
    print(f"{count} figures in {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
