/* Joins the range inputs of every .nl-explorer to its Vega view. Vega, where there is none yet, is loaded from beside this
   script, and a figure's data from where its .nl-data says that they are (they are in it in a notebook). */
(function () {
  "use strict";

  const NARROW = 480;

  /* 24 bits a number: 15 for the four digits, 9 for the exponent; see _pack in normlib/explorer.py. */
  function unpack(text) {
    const bytes = atob(text);
    const numbers = new Array(bytes.length / 3);
    for (let i = 0; i < numbers.length; i++) {
      const code =
        (bytes.charCodeAt(3 * i) << 16) | (bytes.charCodeAt(3 * i + 1) << 8) | bytes.charCodeAt(3 * i + 2);
      // Through text, because 1234 * 10 ** -7 is not the number that reads 1234e-7.
      numbers[i] = code === 0xffffff ? NaN : Number((code >> 9) - 10000 + "e" + ((code & 511) - 256));
    }
    return numbers;
  }

  /* What each kind of mark draws from one curve; i keeps a line in the order of the data, and is with c a row's key. */
  const ROWS = {
    line: (c, x, y) => y.map((value, i) => ({ c, i, x: x[i], y: value })),
    bars: (c, x, y) => y.map((value, i) => ({ c, i, x: x[i], x2: x[i + 1], y: value })),
    step: (c, x, y) => ROWS.line(c, x.flatMap((edge) => [edge, edge]).slice(1, -1), y.flatMap((value) => [value, value])),
  };
  ROWS.points = ROWS.area = ROWS.line;

  function start(figure) {
    const find = (selector) => figure.querySelector(selector);
    const held = find(".nl-data");
    const file = held.dataset.src?.split("/").pop();
    const data = file ? window.normlibData[file] : JSON.parse(held.textContent);
    const arrays = data.arrays.map(() => null);
    const array = (i) => (arrays[i] = arrays[i] || unpack(data.arrays[i]));
    const inputs = [...figure.querySelectorAll("input[type=range]")];
    const outputs = [...figure.querySelectorAll(".nl-slider output")];
    const chart = find(".nl-chart");
    const readout = find(".nl-readout");
    const reset = find(".nl-reset");
    const view = new vega.View(vega.parse(data.vega), { renderer: "svg", hover: false, logLevel: vega.Warn });

    const setting = () => inputs.map((input) => Number(input.value));
    const point = () => setting().reduce((index, i, k) => index * data.sliders[k].texts.length + i, 0);

    function load() {
      const rows = {};
      const pool = data.points[point()];
      data.labels.forEach((label, i) => {
        const kind = data.kinds[i];
        (rows[kind] = rows[kind] || []).push(...ROWS[kind](label, array(pool[2 * i]), array(pool[2 * i + 1])));
      });
      for (const kind in rows) {
        for (const row of rows[kind]) row.key = row.i + " " + row.c;
        view.data(kind, rows[kind]);
      }
    }

    function describe() {
      const now = setting();
      data.sliders.forEach((slider, k) => {
        outputs[k].value = slider.texts[now[k]];
        inputs[k].setAttribute("aria-valuetext", slider.label + " " + slider.texts[now[k]]);
        inputs[k].style.setProperty("--nl-at", now[k] / (slider.texts.length - 1));
      });
      const sentence = data.readouts.length ? data.readouts[point()] : "";
      if (readout) readout.textContent = sentence;
      chart.setAttribute("aria-label", (data.alt + " " + sentence).trim());
      reset.disabled = data.sliders.every((slider, k) => slider.start === now[k]);
    }

    function draw() {
      describe();
      load();
      figure.normlib.drawn = view.runAsync().then(() => undefined);
    }

    function fit() {
      const width = Math.floor(chart.clientWidth);
      if (width > 0 && width !== view.width()) {
        view.width(width).height(width < NARROW ? 240 : 300);
        figure.normlib.drawn = view.runAsync().then(() => undefined);
      }
    }

    inputs.forEach((input, k) => {
      input.value = data.sliders[k].start;
      input.addEventListener("input", draw);
    });
    reset.addEventListener("click", () => {
      inputs.forEach((input, k) => (input.value = data.sliders[k].start));
      draw();
    });
    figure.normlib = { view, drawn: null };
    // A box of its own, because Vega overwrites the role and the label of the element it is given.
    const box = chart.appendChild(document.createElement("div"));
    view.initialize(box);
    box.setAttribute("aria-hidden", "true");
    view.width(Math.floor(chart.clientWidth) || 640).height(chart.clientWidth < NARROW ? 240 : 300);
    draw();
    new ResizeObserver(fit).observe(chart);
  }

  const library = window.vega ? [] : [new URL("vega.js", document.currentScript.src).href];

  function needs(figure) {
    const { src } = figure.querySelector(".nl-data").dataset;
    return src ? [...library, src] : library;
  }

  window.normlibFigures("explorer", start, needs);
})();
