/* A page opened from disk may not fetch others, which is how the search shows an excerpt below each hit. */
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

(function () {
  "use strict";

  /* What is far from the window is laid out when it comes near (book.css); all at once for a jump within the page, which
     must find the heights above its target as they are, and for one who goes by keyboard. */
  function layOutAll() {
    document.documentElement.dataset.whole = "";
  }

  /* Paper is light, and has the drawings that the window has not come near. */
  let theme;
  addEventListener("beforeprint", () => {
    theme ??= document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    for (const drawing of document.querySelectorAll(".nl-light")) drawing.loading = "eager";
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    theme = undefined;
  });

  /* What scrolls sideways in a box of its own can be reached, and then scrolled, by keyboard. Boxes are measured when they
     come near the window, and all of them once the reader goes by keyboard. */
  const BOXES = ".bd-article :is(pre, table, .pst-scrollable-table-container, .cell_output > .output, mjx-container)";
  const near = new Set();
  let keyboard = false;

  function measure() {
    const changes = []; // all is measured before anything is changed, or the page would be laid out for each box
    for (const box of keyboard ? document.querySelectorAll(BOXES) : near) {
      const wide = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      const scrolls = wide && getComputedStyle(box).overflowX === "auto";
      if (scrolls !== (box.getAttribute("tabindex") === "0")) changes.push([box, scrolls]);
    }
    for (const [box, scrolls] of changes) {
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  const sight = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) near.add(target);
        else near.delete(target);
      }
      measure();
    },
    { rootMargin: "100%" },
  );

  addEventListener("load", () => {
    for (const box of document.querySelectorAll(BOXES)) sight.observe(box);
    for (const article of document.querySelectorAll(".bd-article")) new ResizeObserver(measure).observe(article);
  });
  addEventListener("click", ({ target }) => { if (target.closest('a[href*="#"]')) layOutAll(); }, true);
  addEventListener("keydown", ({ key }) => {
    if (key !== "Tab") return;
    layOutAll();
    keyboard = true;
    measure();
  }, true);
})();
