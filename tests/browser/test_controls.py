"""Every control of every page of the built book: by keyboard, by mouse, without haste."""

import pytest
from test_book import PAGES, _built, each_page, visit  # noqa: F401  (_built skips or fails where there is no book)

SLIDERS = ".nl-explorer input[type=range]"


def drawn(page, index):
    """What the Explorer that holds the index-th slider of the page shows: its curves and its slider's value."""
    return page.evaluate(
        """async (index) => {
          const input = document.querySelectorAll(".nl-explorer input[type=range]")[index];
          const figure = input.closest(".nl-explorer");
          await figure.normlib.drawn;
          // Sorted: Vega keeps what an axis already shows and adds the rest behind it, so that the order of its ticks
          // tells where the slider came from. The names that it counts up are cut.
          const marks = [...figure.querySelectorAll(".nl-chart svg :is(path, line, text, rect)")]
            .map((mark) => mark.outerHTML.replace(/(clip|gradient)_?\\d+/g, "$1")).sort();
          return [marks.join("\\n"), input.getAttribute("aria-valuetext")];
        }""",
        index,
    )


# What comes near the window is laid out one frame later, and may move the rest.
STILL = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


@each_page
def test_sliders_move_their_chart(page_factory, path):
    page = visit(page_factory(), path)
    sliders = page.locator(SLIDERS)
    for index in range(sliders.count()):
        slider = sliders.nth(index)
        slider.scroll_into_view_if_needed()
        last = int(slider.get_attribute("max"))
        where = f"{path.stem}, slider {slider.evaluate('i => i.labels[0].textContent')!r}"

        slider.focus()
        page.keyboard.press("Home")
        charts = [drawn(page, index)]
        for _ in range(last):
            page.keyboard.press("ArrowRight")
            charts.append(drawn(page, index))
        assert charts[0][0], f"{where}: no chart"
        assert len({value for _, value in charts}) == last + 1, f"{where}: values by keyboard {charts}"
        assert len({chart for chart, _ in charts}) > 1, f"{where}: the arrow keys change nothing drawn"

        page.evaluate(STILL)
        box = slider.bounding_box()
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] - 3, y)
        page.mouse.down()
        page.mouse.move(box["x"] + 3, y, steps=4)
        page.mouse.up()
        assert drawn(page, index) == charts[0], f"{where}: a drag to its left end shows something else than Home"
        for _ in range(last // 2):  # at an end, a slider may leave the others nothing to change
            page.keyboard.press("ArrowRight")
    assert page.problems == []


# With the first Tab what is wider than its place becomes a stop; a formula's width is that of its fonts.
SETTLED = """
() => document.fonts.ready.then(() => { dispatchEvent(new KeyboardEvent("keydown", { key: "Tab" })); })
"""

# What Tab must stop at, and from then on a record of where it stops and whether that shows.
STOPS = """
() => {
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


@each_page
def test_every_control_is_reached_by_keyboard_and_shows_it(page_factory, path):
    page = page_factory()
    page.emulate_media(reduced_motion="reduce")  # or each stop waits for the page to glide there
    visit(page, path)
    page.evaluate(SETTLED)
    count = page.evaluate(STOPS)
    assert count > 0
    for _ in range(count):
        page.keyboard.press("Tab")
    stops = page.evaluate("() => stops")
    missed = [stop["html"] for stop in stops if not stop["reached"]]
    assert missed == [], f"{path.stem}: the Tab key does not reach {missed[:5]}"
    silent = [stop["html"] for stop in stops if not stop["shown"]]
    assert silent == [], f"{path.stem}: focus is not visible on {silent[:5]}"


@each_page
@pytest.mark.parametrize("way", ["opened there", "clicked"])
def test_a_link_to_a_place_leads_there(page_factory, path, way):
    """Though what is above it is laid out, and figures on the way start, only then."""
    page = page_factory(width=1280)
    page.goto(path.as_uri())
    places = page.locator(".bd-sidebar-secondary a[href^='#']").evaluate_all("all => all.map((a) => a.hash)")
    if not places:
        assert page.locator(".bd-article section section").count() == 0
        return
    place = places[len(places) // 2]
    if way == "clicked":
        page.locator(f".bd-sidebar-secondary a[href='{place}']").evaluate("(link) => link.click()")
    else:
        page.goto("about:blank")
        page.goto(path.as_uri() + place)
    page.evaluate(STILL)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # would show a figure that starts late
    top, end = page.evaluate(
        """(place) => [
          document.getElementById(decodeURIComponent(place.slice(1))).getBoundingClientRect().top,
          document.scrollingElement.scrollHeight - innerHeight - scrollY,
        ]""",
        place,
    )
    assert 0 <= top < 100 or end < 2, f"{path.stem}{place} stands at {top:.0f} px"


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
