"""Writes the drawings of the built book as SVG files, for slides: `make figures`, into _build/figures.

A figure is CHAPTER-NN.svg, counted from 1 down the page, its panels side by side, its alternative text as its title. Of
an interactive figure that is the still form that print shows; where this is text, as a quiz's, there is no drawing, and
the figure is left out. Ink is black: place it on white, or change the color that the file's first element sets.
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
STILL = re.compile(r'<\w+ class="nl-still".*', re.S)
PANEL = re.compile(r"(?:<p>([^<]*)</p>)?(<svg\b[^>]*>)(.*?</svg>)", re.S)
BOX = re.compile(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"')
PICTURE = re.compile(r'<img class="nl-(light|dark)\b[^>]* src="([^"]*)[^>]*>')  # of a drawing, one in either ink
GAP = 12  # between panels, in the drawing's points
LINE = 18  # over panels that have names


def svg(figure: str, folder: Path) -> str | None:
    """A figure of a page in folder as the text of an SVG file; None where what is still of it holds no drawing."""
    still = STILL.search(figure)
    read = lambda found: (folder / found[2]).read_text(encoding="utf-8") if found[1] == "light" else ""  # noqa: E731
    figure = PICTURE.sub(read, still[0] if still else figure)
    panels = PANEL.findall(figure)
    if not panels:
        return None
    title = escape(unescape(re.search(r'aria-label="([^"]*)"', figure)[1]))
    top = LINE if any(name for name, _, _ in panels) else 0
    left, bottom, placed = 0.0, 0.0, ""
    for name, start, rest in panels:
        width, height = map(float, BOX.search(start).groups())
        if name:
            placed += (
                f'<text x="{left + width / 2:g}" y="{LINE - 6}" font-size="12" text-anchor="middle" '
                f'font-family="system-ui, sans-serif" fill="currentColor">{name}</text>'
            )
        place = f'<svg x="{left:g}" y="{top}" width="{width:g}" height="{height:g}"'
        placed += place + re.sub(r'<svg| (width|height|xmlns(:xlink)?|color)="[^"]*"', "", start) + rest
        left, bottom = left + width + GAP, max(bottom, top + height)
    width, height = left - GAP, bottom
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
    count = left_out = 0
    for page in pages:
        drawings = [svg(figure, page.parent) for figure in FIGURE.findall(page.read_text(encoding="utf-8"))]
        left_out += drawings.count(None)
        for number, drawing in enumerate(filter(None, drawings), start=1):
            (TARGET / f"{page.stem}-{number:02}.svg").write_text(drawing, encoding="utf-8")
            count += 1
    print(f"{count} figures in {TARGET}; left out, being text in print: {left_out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
