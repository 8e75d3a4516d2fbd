/* Starts the figures of one kind, each once. Where one cannot start, its still form stays (interactive.css). Loaded
   before the script of the kind, which calls this. */
window.normlibFigures = function (kind, start) {
  "use strict";

  function show(figure, shown) {
    // what needs a script, hidden until it runs
    for (const part of figure.querySelectorAll(".nl-controls, .nl-live, .nl-reset")) part.hidden = !shown;
    figure.classList.toggle("nl-on", shown);
    figure.classList.toggle("nl-off", !shown);
  }

  function startOne(figure) {
    if (figure.matches(".nl-on, .nl-off")) return; // tried by another call, for a figure added later
    show(figure, true); // first, because a chart needs to know its width
    try {
      start(figure);
    } catch (error) {
      show(figure, false);
      console.error(`A figure of kind ${kind} could not start:`, error);
    }
  }

  function startAll() {
    // What the reader sees starts at once; the rest one by one when nothing else is to be done, or after two seconds.
    const later = window.requestIdleCallback || ((task) => setTimeout(task, 0));
    for (const figure of document.querySelectorAll(`.nl-${kind}:not(.nl-on, .nl-off)`)) {
      const { top, bottom } = figure.getBoundingClientRect();
      if (bottom > 0 && top < window.innerHeight) startOne(figure);
      else later(() => startOne(figure), { timeout: 2000 });
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
};
