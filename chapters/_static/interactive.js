/* Starts the figures of one kind, each once, when it comes near the window; all of them when the reader begins to go by
   keyboard, before the focus moves. Where one cannot start, its still form stays (interactive.css). Loaded before the
   script of the kind, which calls this; `needs` gives the addresses of scripts to be loaded before a figure starts. */
window.normlibFigures = function (kind, start, needs) {
  "use strict";

  const loading = new Map(); // by address

  function load(src) {
    if (!loading.has(src)) {
      loading.set(src, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.addEventListener("load", resolve);
        script.addEventListener("error", () => reject(new Error(`${src} could not be loaded`)));
        document.head.append(Object.assign(script, { src }));
      }));
    }
    return loading.get(src);
  }

  function control(figure, shown) {
    // what needs a script, hidden until it runs
    for (const part of figure.querySelectorAll(".nl-controls, .nl-live, .nl-reset")) part.hidden = !shown;
  }

  function settle(figure, shown) {
    control(figure, shown);
    figure.classList.toggle("nl-on", shown);
    figure.classList.toggle("nl-off", !shown);
  }

  function fail(figure, error) {
    settle(figure, false);
    console.error(`A figure of kind ${kind} could not start:`, error);
  }

  function run(figure) {
    settle(figure, true); // first, because a chart needs to know its width
    try {
      start(figure);
    } catch (error) {
      fail(figure, error);
    }
  }

  function startOne(figure) {
    if (figure.normlibTried) return; // by another call too, made for a figure added later
    figure.normlibTried = true;
    const addresses = needs ? needs(figure) : [];
    if (addresses.length === 0) return run(figure);
    control(figure, true); // already, for the focus may be on its way there
    Promise.all(addresses.map(load)).then(() => run(figure), (error) => fail(figure, error));
  }

  function startAll() {
    const figures = [...document.querySelectorAll(`.nl-${kind}`)].filter((figure) => !figure.normlibTried);
    const sight = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (!isIntersecting) continue;
          sight.unobserve(target);
          startOne(target);
        }
      },
      { rootMargin: "50%" },
    );
    for (const figure of figures) sight.observe(figure);
    addEventListener("keydown", ({ key }) => { if (key === "Tab") figures.forEach(startOne); }, true);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
};
