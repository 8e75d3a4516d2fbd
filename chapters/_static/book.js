/* A page opened from disk may not fetch others, which is how the search shows an excerpt below each hit. */
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

/* What scrolls sideways in a box of its own can be reached, and then scrolled, by keyboard. The theme sees to code. */
(function () {
  "use strict";

  function reachable() {
    const boxes = ".bd-article :is(table, .pst-scrollable-table-container, .output.text_html, mjx-container)";
    const changes = []; // all is measured before anything is changed, or the page would be laid out for each box
    for (const box of document.querySelectorAll(boxes)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX === "auto";
      if (scrolls !== (box.getAttribute("tabindex") === "0")) changes.push([box, scrolls]);
    }
    for (const [box, scrolls] of changes) {
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  // The article's height changes with its width, and with nearly every formula that comes near and is set.
  const watch = new ResizeObserver(reachable);
  addEventListener("load", () => document.querySelectorAll(".bd-article").forEach((article) => watch.observe(article)));
})();

/* Formulas far from the window are set when the page is printed; their fonts would come too late for the paper. A phone,
   which hardly prints, is spared their 0.3 MB. */
if (matchMedia("(min-width: 40rem)").matches) addEventListener("load", () => {
  const later = window.requestIdleCallback || ((task) => setTimeout(task, 2000));
  later(() => document.fonts.forEach((face) => { if (/^"?MJXTEX/.test(face.family)) face.load(); }));
});
