"""Every page of the built book, opened from disk in a headless Chromium.

To open a page takes longer than to look at it, so the tests of `page` share each page, once for every screen.
"""

import json
import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from watch import start_figures, watched

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
PAGES = sorted(HTML.glob("chapters/*.html"))
BESIDE = sorted(HTML.glob("*.html"))  # the front page, the search, the index
WEIGHT = 1_500_000  # bytes a page may load beside the scripts, styles and fonts that all pages share

SCREENS = ((1280, "light"), (1280, "dark"), (360, "dark"))  # the phone's theme matters to no test of its width

# index.html only leads to the introduction.
VIEWS = [
    pytest.param((path, *screen), id="-".join(map(str, (path.stem, *screen))))
    for path in [*(path for path in BESIDE if path.name != "index.html"), *PAGES]
    for screen in SCREENS
]
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _built():
    if not PAGES:
        reason = f"no book: {HTML} holds no chapter; run `make book`"
        if os.environ.get("NORMLIB_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def test_the_book_is_built():
    """Stands for the tests of each page where there is no page to make them of."""
    assert (HTML / "index.html").exists()


def visit(page, path):
    """Opens the page, waits for its figures, and has it as it is when all of it was seen."""
    page.goto(path.as_uri())
    page.evaluate("() => { for (const fold of document.querySelectorAll('details')) fold.open = true }")
    start_figures(page)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # sizes
    return page


@pytest.fixture(scope="module", params=VIEWS)
def page(browser, request):
    """A page on a screen; `page.name` says which it is."""
    path, width, theme = request.param
    page = watched(browser, width=width, theme=theme)
    page.name = f"{path.stem} at {width} px, {theme}"
    try:
        yield visit(page, path)
    finally:
        page.context.close()


class _Parts(HTMLParser):
    """The ids, links and files that a page names."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.files = set(), [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.update(filter(None, (attributes.get("id"), tag == "a" and attributes.get("name"))))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in ("img", "source", "script", "iframe", "embed", "audio", "video") and attributes.get("src"):
            self.files.append(attributes["src"])
        if tag == "link" and attributes.get("rel") not in ("canonical", "author"):
            self.files.append(attributes["href"])


@cache
def parts(path):
    parser = _Parts()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_opens_without_complaint_or_network(page):
    page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    assert page.problems == []


def test_maths_is_rendered(page):
    formulas = page.locator(".bd-article .math").count()
    assert page.locator(".bd-article .math mjx-container mjx-math").count() >= formulas
    raw = page.evaluate(
        "() => [...document.querySelectorAll('.bd-article :is(p, li, td, figcaption, h1, h2, h3)')]"
        ".filter(e => !e.closest('.nl-explorer')).map(e => e.textContent)"
        r".filter(t => /\$\$|\\\(|\\\[|\\(frac|mathbb|sqrt|sum)\b/.test(t))"
    )
    assert raw == [], f"{page.name}: maths left as source: {raw}"


def test_nothing_scrolls_sideways(page):
    wide = page.evaluate(
        """() => {
          if (document.scrollingElement.scrollWidth <= innerWidth) return [];
          const boxed = (e) => e && e !== document.body
            && (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX) || boxed(e.parentElement));
          return [...document.querySelectorAll("body *")]
            .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !boxed(e.parentElement))
            .map((e) => `${e.tagName}.${e.className}`).concat("the page");
        }"""
    )
    assert wide == [], f"{page.name} is wider than the screen because of {wide}"


def test_nothing_is_cut_off(page):
    """What reaches beyond the text's column lies in a box that scrolls."""
    cut = page.evaluate(
        """() => {
          const scrolls = (e) => e.closest("pre, mjx-container, .math, table, .text_html, .nl-explorer, .highlight");
          return [...document.querySelectorAll(".bd-article *")]
            .filter((e) => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e))
            .map((e) => `${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`);
        }"""
    )
    assert cut == [], f"{page.name}: beyond the edge of the screen: {cut}"


# For each distinct (ink, paper) of code and its output: the contrast by WCAG 2, smallest first.
CONTRAST = """
() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = (top, below) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => a * top[i] + (1 - a) * below[i]);
  };
  const paper = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) {
      layers.push(channels(getComputedStyle(e).backgroundColor));
      if ((layers.at(-1)[3] ?? 1) === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = new Map();
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e.closest(SELECTOR) || !e.getClientRects().length) continue;
    const below = paper(e), ink = over(channels(getComputedStyle(e).color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    const colors = `${ink.map(Math.round)} on ${below.map(Math.round)}`;
    found.set(colors, [(a + 0.05) / (b + 0.05), colors, e.className, e.textContent.slice(0, 30)]);
  }
  return [...found.values()].sort((x, y) => x[0] - y[0]);
}
"""


def test_text_stands_out(page):
    assert page.evaluate("() => document.documentElement.dataset.theme") == page.name.split()[-1]
    has_code = page.locator(".bd-article pre").count() > 0
    for selector in ["pre"] * has_code + ["p, li, td, th, h1, h2, figcaption, .nl-explorer"]:
        found = page.evaluate(CONTRAST.replace("SELECTOR", repr(selector)))
        assert found, f"{page.name}: nothing measured for {selector}"
        faint = [entry for entry in found if entry[0] < 4.5]
        assert faint == [], f"{page.name}: contrast below 4.5 : 1: {faint}"


def test_pictures_say_what_they_show(page):
    silent = page.evaluate(
        """() => [...document.querySelectorAll('img, [role="img"], .bd-article svg')]
          .filter((e) => !e.closest('[aria-hidden="true"], button, summary'))
          .filter((e) => !e.parentElement.closest('[role="img"]'))
          .filter((e) => e.getClientRects().length)
          .filter((e) => !(e.getAttribute("alt") || e.getAttribute("aria-label") || e.querySelector("title")))
          .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert silent == [], f"{page.name}: without alternative text: {silent}"


def test_controls_have_names(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(".bd-article input, .bd-article button, .bd-article select")]
          .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.title || e.textContent.trim()))
          .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == [], f"{page.name}: without a name: {nameless}"


@pytest.fixture
def on_paper(page):
    page.emulate_media(media="print")
    yield page
    page.emulate_media(media="screen")


def test_paper_has_figures_and_formulas_and_no_controls(on_paper):
    page = on_paper
    visible = """(selector) => [...document.querySelectorAll(selector)]
      .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().height > 0)
      .map((e) => e.outerHTML.slice(0, 100))"""
    beside = ".bd-header, .bd-header-article, .bd-sidebar, .prev-next-footer, .headerlink"
    controls = f"button, input:not([name=q]), select, {beside}"  # the page of the search has nothing else to print
    assert page.evaluate(visible, controls) == []
    for selector in (".bd-article figure.nl-figure .nl-light", ".bd-article .math mjx-container"):
        assert len(page.evaluate(visible, selector)) == page.locator(selector).count()
    interactive = page.locator(".bd-article figure.nl-interactive").count()
    assert len(page.evaluate(visible, ".bd-article figure.nl-interactive .nl-still")) == interactive


# axe's time grows with the number of elements, most of which no reader meets one by one: glyphs of formulas, which
# screen readers skip for their MathML; strokes of pictures that have one alternative text; colored tokens of code,
# whose contrast is measured above. Boxes keep their sizes, since what scrolls depends on them.
LIGHTEN = """
() => {
  const formulas = [...document.querySelectorAll("mjx-math[aria-hidden=true]")];
  const boxes = formulas.map((maths) => [maths, maths.getBoundingClientRect()]);
  for (const [maths, { width, height }] of boxes) {
    maths.replaceChildren();
    maths.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
  }
  for (const svg of document.querySelectorAll(".bd-article svg")) {
    svg.replaceChildren(...svg.querySelectorAll(":scope > title, :scope > desc"));
  }
  for (const pre of document.querySelectorAll(".bd-article pre")) pre.textContent = pre.textContent;
}
"""
AXE = """
async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.flatMap((rule) =>
  rule.nodes.map((node) => `${rule.id} (${rule.impact}): ${node.html.slice(0, 160)}`
    + [...node.any, ...node.all, ...node.none].map((check) => `; ${check.message}`).join("")))
"""


def test_axe_finds_nothing(page):
    """The last of these tests, since it takes away what the others look at."""
    page.evaluate(LIGHTEN)
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate(AXE)
    assert found == [], f"{page.name}: axe finds\n" + "\n".join(found)


def test_axe_would_find_something(page_factory):
    """The check itself: a page with planted defects does not pass."""
    page = page_factory()
    page.set_content('<html lang="en"><title>t</title><main><h1>t</h1><img src="data:,"><input></main></html>')
    page.evaluate(AXE_SCRIPT)
    found = " ".join(page.evaluate(AXE))
    assert "image-alt (critical)" in found
    assert "label (critical)" in found
    page.set_content('<html lang="en"><title>t</title><main><h1 style="color: #ccc">Pale</h1></main></html>')
    page.evaluate(AXE_SCRIPT)
    assert "color-contrast" in " ".join(page.evaluate(AXE))


def test_text_in_figures_is_in_the_pages_ink():
    """Text is drawn as shapes after a comment, or as text; a color of its own would be one made for lines."""
    drawn = [
        (path.stem, *found)
        for path in (*PAGES, *(HTML / "_images").glob("drawing-*.svg"))
        for found in re.findall(r"<!-- (.+?) -->\s*<g([^>]*)>|<text([^>]*)>", path.read_text(encoding="utf-8"))
    ]
    assert all(any(entry[kind] for entry in drawn) for kind in (1, 3)), "one of the two was not found"
    own = re.compile(r"""\b(fill(: |=")(?!currentColor)|opacity)""")
    assert [entry for entry in drawn if own.search(entry[2] + entry[3])] == []


def test_drawings_are_files_that_can_be_read():
    files = list((HTML / "_images").glob("drawing-*.svg"))
    assert len(files) > 50
    for file in files:
        assert ElementTree.parse(file).getroot().tag.endswith("svg")
    inline = [
        path.stem for path in PAGES if 'fill="currentColor" aria-hidden="true"' in path.read_text(encoding="utf-8")
    ]
    assert inline == []


@each_page
def test_ids_are_unique(path):
    ids = re.findall(r"<[a-zA-Z][^>]*?\sid=\"([^\"]+)\"", path.read_text(encoding="utf-8"))
    twice = {name for name in ids if ids.count(name) > 1}
    # The theme renders its search and its header twice, for wide and for narrow screens.
    twice -= {"search-input", "pst-primary-sidebar-checkbox"}
    assert not twice, f"{path.stem}: ids used twice: {sorted(twice)}"


@pytest.mark.parametrize("path", BESIDE + PAGES, ids=lambda path: path.stem)
def test_links_and_files_resolve(path):
    found = parts(path)
    broken = []
    for link in found.links + found.files:
        address = urlsplit(link)
        if address.scheme or address.netloc:
            continue
        target = (path.parent / unquote(address.path)).resolve() if address.path else path
        fragment = unquote(address.fragment)
        if not target.exists() or (fragment and target.suffix == ".html" and fragment not in parts(target).ids):
            broken.append(link)
    broken = [link for link in broken if link != "#"]  # a button of the theme
    assert broken == [], f"{path.stem}: leads nowhere: {broken}"
    foreign = [link for link in found.files if urlsplit(link).netloc]
    assert foreign == [], f"{path.stem}: fetched from elsewhere: {foreign}"


@each_page
def test_the_download_is_the_executed_notebook(path):
    """With a picture for each that the page shows; tools/publish.py puts it in place of the sources."""
    downloads = [link for link in parts(path).links if re.search(r"_sources/.*\.ipynb$", link)]
    if not (HTML.parents[1] / "chapters" / f"{path.stem}.ipynb").exists():
        assert downloads == []
        return
    assert downloads
    notebook = json.loads((path.parent / downloads[0]).read_text(encoding="utf-8"))
    outputs = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    figures = re.findall(r'<figure class="(nl-figure|nl-interactive)', path.read_text(encoding="utf-8"))
    assert sum("image/png" in data for data in outputs) >= figures.count("nl-figure")
    interactive = sum("nl-interactive" in str(data.get("text/html")) for data in outputs)
    assert interactive == figures.count("nl-interactive")


@each_page
def test_a_page_is_light(path):
    # of a drawing's two files a browser fetches one
    images = {file for file in parts(path).files if "_images" in file and not file.endswith("-dark.svg")}
    own = [path, *((path.parent / file).resolve() for file in images)]
    weight = sum(file.stat().st_size for file in own)
    assert weight <= WEIGHT, f"{path.stem}: {weight} bytes, at most {WEIGHT}"


def test_the_search_works_from_disk(page_factory):
    page = page_factory()
    page.goto(f"{(HTML / 'search.html').as_uri()}?q=normalization")
    page.wait_for_selector("#search-results li a")
    assert page.problems == []


def test_the_front_page_leads_into_the_book(page_factory):
    page = page_factory()
    page.goto((HTML / "index.html").as_uri())
    page.wait_for_url("**/chapters/00_intro.html")
