/* Sets formulas with MathJax, whose folder is the one argument: [[TeX, whether displayed], ...] comes by the standard
   input, {"formulas": [HTML, ...], "css": their style sheet} goes to the standard output. At a formula that cannot be
   read, an undefined macro included, it ends with the reason and the formula. */
"use strict";

const { readFileSync } = require("fs");
const formulas = JSON.parse(readFileSync(0, "utf8"));

async function main() {
  const MathJax = await require(`${process.argv[2]}/node-main.js`).init({
    loader: { load: ["input/tex-full", "output/chtml", "adaptors/liteDOM", "a11y/assistive-mml"] },
    tex: {
      packages: { "[-]": ["noundefined"] },
      formatError: (_, error) => { throw error; },
    },
    chtml: { fontURL: "formulas", adaptiveCSS: true },
  });
  const { adaptor } = MathJax.startup;
  const set = ([tex, display]) => {
    try {
      return adaptor.outerHTML(MathJax.tex2chtml(tex, { display }));
    } catch (error) {
      throw new Error(`${error.message}: ${tex}`);
    }
  };
  const html = formulas.map(set); // first, for the style sheet has the letters that were used
  process.stdout.write(JSON.stringify({ formulas: html, css: adaptor.textContent(MathJax.chtmlStylesheet()) }));
}

main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
