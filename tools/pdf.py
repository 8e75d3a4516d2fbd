"""Prints the built book into one PDF with Chromium: `make pdf`, into _build/small-batches.pdf.

Every page of the table of contents is printed as it is on paper, answers unfolded and folded code left out, and the
parts are joined: page numbers run through, a bookmark leads to every heading. Links between pages, which would lead to
this machine's disk, become text.
"""

import io
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfReader, PdfWriter

from tools import toc
from tools.browser import chromium

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "small-batches.pdf"
FOR_PAPER = """(before) => {
  for (const fold of document.querySelectorAll("details:not(.hide)")) fold.open = true;
  for (const link of document.querySelectorAll("a[href]")) {
    const here = link.href.split("#")[0] === location.href.split("#")[0];
    if (link.protocol === "file:" && !here) link.removeAttribute("href");
  }
  const style = document.createElement("style");
  style.textContent = `
    @page { size: A4; margin: 18mm 20mm; @bottom-center { content: counter(page); font: 9pt sans-serif } }
    html { counter-reset: page ${before} }`;
  document.head.append(style);
  const title = document.querySelector(".bd-article h1").cloneNode(true);
  title.querySelector(".headerlink")?.remove();
  return title.textContent.trim();
}"""
SCALE = 0.85  # a line of a page's column on a line of paper


def pages() -> list[Path]:
    """The built pages in the order of the table of contents."""
    return [HTML / f"{name}.html" for name, _ in toc.pages()]


def printed(browser: Browser, path: Path, before: int) -> tuple[str, bytes]:
    """The title of a page and the page as a PDF, whose sheets are numbered from the next after `before`."""
    page = browser.new_page(viewport={"width": 1000, "height": 1400}, color_scheme="light")
    page.add_init_script("for (const key of ['mode', 'theme']) localStorage.setItem(key, 'light')")
    page.goto(path.as_uri(), timeout=120_000)
    page.evaluate("() => document.fonts.ready.then(() => true)")
    title = page.evaluate(FOR_PAPER, before)
    content = page.pdf(prefer_css_page_size=True, scale=SCALE, print_background=True, outline=True, tagged=True)
    page.close()
    return title, content


def main() -> int:
    """Returns the exit status: 1 where there is no book or no Chromium."""
    missing = [path for path in pages() if not path.exists()]
    if missing:
        print(f"no {missing[0]}; run `make book` first", file=sys.stderr)
        return 1
    try:
        path = chromium()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    book = PdfWriter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for page in pages():
            title, content = printed(browser, page, len(book.pages))
            book.append(PdfReader(io.BytesIO(content)), outline_item=title)
            print(f"{page.stem}: {len(book.pages)} pages so far", flush=True)
        browser.close()
    book.write(TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
