/* Switches every .nl-cube between the drawings that normlib/cube.py made of each setting. */
(function () {
  "use strict";

  function start(figure) {
    const find = (selector) => figure.querySelector(selector);
    const data = JSON.parse(find(".nl-data").textContent);
    const drawing = find(".nl-drawing");
    const radios = [...figure.querySelectorAll("input[type=radio]")];
    const sliders = {};
    for (const box of figure.querySelectorAll(".nl-slider")) {
      const input = box.querySelector("input");
      sliders[box.dataset.name] = { box, input, values: input.dataset.values.split(" ") };
      input.value = input.defaultValue; // a reload may have kept another
    }
    for (const radio of radios) radio.checked = radio.defaultChecked;

    function draw() {
      const method = data.methods[radios.find((radio) => radio.checked).value];
      for (const name in sliders) {
        const { box, input, values } = sliders[name];
        const text = values[input.value];
        box.querySelector("output").value = text;
        input.setAttribute("aria-valuetext", box.querySelector("label").textContent + " " + text);
        input.style.setProperty("--nl-at", input.value / input.max);
      }
      for (const name of ["m", "groups"]) {
        const idle = method.option !== name;
        sliders[name].box.classList.toggle("nl-idle", idle);
        sliders[name].input.disabled = idle;
      }
      const variant = data.variants[method.variants[method.option ? sliders[method.option].input.value : 0]];
      const place =
        sliders.sample.input.value * sliders.channel.values.length + Number(sliders.channel.input.value);
      const [block, sentence] = data.sets[variant.sets[place]];
      find(".nl-drawing .nl-lit").innerHTML = data.blocks[block];
      find(".nl-drawing .nl-cuts").setAttribute("d", variant.cuts);
      find(".nl-drawing .nl-dot").setAttribute("cx", data.dots[place][0]);
      find(".nl-drawing .nl-dot").setAttribute("cy", data.dots[place][1]);
      drawing.setAttribute("aria-label", data.alt + " " + sentence);
      if (find(".nl-readout").textContent !== sentence) find(".nl-readout").textContent = sentence;
    }

    for (const input of figure.querySelectorAll("input")) input.addEventListener("input", draw);
    draw();
  }

  window.normlibFigures("cube", start);
})();
