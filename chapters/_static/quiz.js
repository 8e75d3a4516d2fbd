/* Says, in every .nl-quiz, what normlib/quiz.py has to say to the answer chosen. */
(function () {
  "use strict";

  function start(figure) {
    const find = (selector) => figure.querySelector(selector);
    const data = JSON.parse(find(".nl-data").textContent);
    figure.querySelectorAll(".nl-question").forEach((question, number) => {
      const radios = [...question.querySelectorAll("input")];
      const said = question.querySelector(".nl-said");
      for (const radio of radios) {
        radio.checked = false; // a reload may have kept one
        radio.addEventListener("input", () => said.replaceChildren());
      }
      question.querySelector(".nl-check").addEventListener("click", () => {
        const chosen = radios.findIndex((radio) => radio.checked);
        if (chosen < 0) said.textContent = data.unchosen;
        else said.innerHTML = data.replies[number][chosen];
      });
    });
  }

  window.normlibFigures("quiz", start);
})();
