/* Moves every .nl-design between the settings that normlib/design.py described. */
(function () {
  "use strict";

  function start(figure) {
    const find = (selector) => figure.querySelector(selector);
    const data = JSON.parse(find(".nl-data").textContent);
    const groups = [...figure.querySelectorAll("fieldset")].map((f) => [...f.querySelectorAll("input")]);
    const [, sources, flows] = groups;
    const rows = [...figure.querySelectorAll(".nl-map tbody tr")].map((row) => [...row.querySelectorAll("td")]);
    const labels = groups[0].map((radio) => radio.parentElement.textContent.trim());
    const chosen = (radios) => radios.findIndex((radio) => radio.checked);

    function put(selector, text) {
      const node = find(selector);
      if (node.textContent !== text) node.textContent = text;
    }

    function draw() {
      const [set, source, flow] = groups.map(chosen);
      const first = set * sources.length * flows.length;
      rows.forEach((cells, f) =>
        cells.forEach((cell, s) => {
          const [kind, short] = data.settings[first + s * flows.length + f];
          cell.className = "nl-" + kind;
          cell.textContent = short;
          const here = s === source && f === flow;
          cell.style.outline = here ? "2px solid" : "";
          if (here) cell.setAttribute("aria-current", "true");
          else cell.removeAttribute("aria-current");
        }),
      );
      find(".nl-drawing .nl-lit").setAttribute("d", data.lit[set]);
      put(".nl-drawing .nl-down", data.axes[source][0]);
      put(".nl-drawing .nl-across", data.axes[source][1]);
      find(".nl-drawing").setAttribute("aria-label", data.alt + " " + labels[set]);
      const [, , name, forward, backward, sentence] = data.settings[first + source * flows.length + flow];
      put(".nl-name", name);
      put(".nl-forward", forward);
      put(".nl-backward", backward);
      put(".nl-sentence", sentence);
    }

    for (const radio of groups.flat()) {
      radio.checked = radio.defaultChecked; // a reload may have kept another
      radio.addEventListener("input", draw);
    }
    rows.forEach((cells, f) =>
      cells.forEach((cell, s) =>
        cell.addEventListener("click", () => {
          sources[s].checked = flows[f].checked = true;
          draw();
        }),
      ),
    );
    draw();
  }

  window.normlibFigures("design", start);
})();
