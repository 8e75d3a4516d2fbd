/* Stored with an interactive figure in a published notebook (tools/publish.py puts in the values): replaces the still
   picture by the figure that the book shows. Where a front end drops scripts, or the network is away, the picture
   stays. */
(function (values, start) {
  "use strict";
  const { id, kind, figure, style, vega } = values;
  const host = document.getElementById(id);
  const still = host.firstElementChild;

  function show() {
    host.innerHTML = figure;
    host.querySelector(".nl-still").replaceChildren(...(still.matches("img") ? [still] : still.childNodes));
    host.append(Object.assign(document.createElement("style"), { textContent: style }));
    start();
  }

  function load() {
    if (window.vega) return Promise.resolve();
    return new Promise((resolve) => {
      // Vega would hand itself to a module loader, which the classic notebook has, and not to the page.
      const define = window.define;
      window.define = undefined;
      const script = document.createElement("script");
      script.addEventListener("load", resolve);
      for (const event of ["load", "error"]) script.addEventListener(event, () => (window.define = define));
      document.head.append(Object.assign(script, { src: vega.address, integrity: vega.integrity, crossOrigin: "" }));
    });
  }

  if (kind !== "explorer") return show();
  window.normlibVega = window.normlibVega || load(); // once for all figures of a page
  window.normlibVega.then(show);
})
