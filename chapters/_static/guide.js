/* Looks up, in every .nl-guide, the answer that normlib/guide.py worked out for each combination of answers. */
(function () {
  "use strict";

  function start(figure) {
    const find = (selector) => figure.querySelector(selector);
    const data = JSON.parse(find(".nl-data").textContent);
    const questions = [...figure.querySelectorAll("fieldset")].map((set) => [...set.querySelectorAll("input")]);
    for (const radios of questions) {
      for (const radio of radios) radio.checked = radio.defaultChecked; // a reload may have kept another
    }
    let shown = null;

    function draw() {
      let place = 0;
      questions.forEach((radios, i) => {
        place = place * data.sizes[i] + radios.findIndex((radio) => radio.checked);
      });
      const answer = data.chosen[place];
      if (answer !== shown) find(".nl-live").innerHTML = data.answers[answer];
      shown = answer;
    }

    for (const radio of questions.flat()) radio.addEventListener("input", draw);
    draw();
  }

  window.normlibFigures("guide", start);
})();
