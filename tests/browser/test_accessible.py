"""axe-core on every page of the built book, in both themes, on a desk and on a phone; the keyboard's way; motion."""

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from test_book import BESIDE, PAGES, READY, _built, visit  # noqa: F401  (_built skips or fails where there is no book)

# index.html only leads to the introduction.
EVERY = [path for path in BESIDE if path.name != "index.html"] + PAGES
every_page = pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)

# axe's time grows with the number of elements, most of which no reader meets one by one: glyphs of formulas, which
# screen readers skip for their MathML; strokes of pictures that have one alternative text; colored tokens of code,
# whose contrast test_book.py measures. Boxes keep their sizes, since what scrolls depends on them.
LIGHTEN = """
() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
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
async (options) => (await axe.run(document, { resultTypes: ["violations"], ...options })).violations.flatMap((rule) =>
  rule.nodes.map((node) => `${rule.id} (${rule.impact}): ${node.html.slice(0, 160)}`
    + [...node.any, ...node.all, ...node.none].map((check) => `; ${check.message}`).join("")))
"""
COLORS = {"runOnly": ["color-contrast", "link-in-text-block"]}  # all that another theme can change


@every_page
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (360, "dark")])
def test_axe_finds_nothing(page_factory, path, width, theme):
    page = visit(page_factory(width=width, theme=theme), path)
    page.evaluate(LIGHTEN)
    page.evaluate(AXE_SCRIPT)
    found = [f"{theme}: {violation}" for violation in page.evaluate(AXE, {})]
    other = "dark" if theme == "light" else "light"
    page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", other)
    page.wait_for_function("() => document.getAnimations().every((a) => a.playState !== 'running')")  # colors fade over
    found += [f"{other}: {violation}" for violation in page.evaluate(AXE, COLORS)]
    assert found == [], f"{path.stem} at {width} px: axe finds\n" + "\n".join(found)


def test_axe_would_find_something(page_factory):
    """The check itself: a page with planted defects does not pass."""
    page = page_factory()
    page.set_content('<html lang="en"><title>t</title><main><h1>t</h1><img src="data:,"><input></main></html>')
    page.evaluate(AXE_SCRIPT)
    found = " ".join(page.evaluate(AXE, {}))
    assert "image-alt (critical)" in found
    assert "label (critical)" in found
    page.set_content('<html lang="en"><title>t</title><main><h1 style="color: #ccc">Pale</h1></main></html>')
    page.evaluate(AXE_SCRIPT)
    assert "color-contrast" in " ".join(page.evaluate(AXE, COLORS))


# What Tab must stop at, and from then on a record of where it stops and whether that shows.
STOPS = """
() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const controls = [...document.querySelectorAll(
    ".bd-article :is(a[href], button, input, select, summary, [tabindex='0'])"
  )].filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled).filter((e) => {
    if (e.type !== "radio") return true;
    const group = [...document.getElementsByName(e.name)]; // Tab stops at the chosen one, or else at the first
    return e === (group.find((radio) => radio.checked) ?? group[0]);
  });
  window.stops = controls.map((e) => ({ html: e.outerHTML.slice(0, 120), reached: false, shown: false }));
  addEventListener("focusin", (event) => {
    const stop = window.stops[controls.indexOf(event.target)];
    if (!stop) return;
    const style = getComputedStyle(event.target);
    stop.reached = true;
    stop.shown = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  });
  const article = document.querySelector(".bd-article"); // Tab goes on from here
  article.tabIndex = -1;
  article.focus();
  return controls.length;
}
"""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_control_is_reached_by_keyboard_and_shows_it(page_factory, path):
    page = page_factory()
    page.emulate_media(reduced_motion="reduce")  # or each stop waits for the page to glide there
    visit(page, path)
    count = page.evaluate(STOPS)
    assert count > 0
    for _ in range(count):
        page.keyboard.press("Tab")
    stops = page.evaluate("() => stops")
    missed = [stop["html"] for stop in stops if not stop["reached"]]
    assert missed == [], f"{path.stem}: the Tab key does not reach {missed[:5]}"
    silent = [stop["html"] for stop in stops if not stop["shown"]]
    assert silent == [], f"{path.stem}: focus is not visible on {silent[:5]}"


def test_reduced_motion_is_respected(page_factory):
    page = page_factory()
    page.emulate_media(reduced_motion="reduce")
    visit(page, PAGES[0])
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((e) => {
          const style = getComputedStyle(e);
          return style.scrollBehavior === "smooth"
            || [style.transitionDuration, style.animationDuration].some((t) => t.split(",").some((d) => parseFloat(d)));
        }).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert moving == []
