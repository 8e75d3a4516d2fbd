"""What this book adds to Sphinx: scripts of figures, what takes how long, answers of the quiz; nothing from outside."""

import hashlib
import re
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES, Text
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from normlib import explorer
from normlib.interactive import KINDS
from normlib.questions import QUESTIONS
from normlib.quiz import LETTERS, anchor


class RunningTimes(nodes.General, nodes.Element):
    """Stands for the table until every chapter has run."""


class RunningTimesDirective(SphinxDirective):
    """`running-times`: how long each chapter takes to read, and took to run when this book was built."""

    def run(self):
        return [RunningTimes()]


class QuizAnswers(nodes.General, nodes.Element):
    """Stands for the questions until the chapters' titles are known."""


class QuizAnswersDirective(SphinxDirective):
    """`quiz-answers`: every chapter's questions, with what is right and why the rest is not."""

    def run(self):
        return [QuizAnswers()]


def _table(rows):
    """A docutils table of rows, the first one its header; a cell is a list of inline nodes."""
    columns = len(rows[0])
    group = nodes.tgroup(cols=columns)
    group += [nodes.colspec(colwidth=100 // columns) for _ in range(columns)]
    head, body = nodes.thead(), nodes.tbody()
    for number, row in enumerate(rows):
        entries = [
            nodes.entry("", nodes.paragraph("", "", *cell)) for cell in row
        ]
        (body if number else head).append(nodes.row("", *entries))
    group += [head, body]
    return nodes.table("", group, classes=["colwidths-auto", "nl-times"])


def _link(app, here, there, text, fragment=""):
    address = app.builder.get_relative_uri(here, there) + fragment
    return nodes.reference("", text, internal=True, refuri=address)


def _times(env, docname):
    """Minutes to read a page, by its words; seconds that it ran, None where it runs nothing."""
    ran = NbMetadataCollector.get_exec_data(env, docname)
    minutes = env.metadata[docname]["wordcount"]["minutes"]
    return minutes, ran["runtime"] if ran else None


def _times_table(app, docname):
    head = ("chapter", "reading, minutes", "running, seconds")
    rows = [[[nodes.Text(text)] for text in head]]
    reading, running = 0, 0.0
    for chapter in sorted(NbMetadataCollector.get_doc_data(app.env)):
        minutes, seconds = _times(app.env, chapter)
        if seconds is None:
            continue
        reading, running = reading + minutes, running + seconds
        title = _link(app, docname, chapter, app.env.titles[chapter].astext())
        cells = (title, nodes.Text(str(minutes)), nodes.Text(f"{seconds:.1f}"))
        rows.append([[cell] for cell in cells])
    total = ("all", str(reading), f"{running:.1f}")
    return _table([*rows, [[nodes.Text(text)] for text in total]])


def _quiz_answers(app, docname):
    """A list per chapter: each question, each answer with its reason, the right one in bold."""
    found = []
    for chapter, questions in QUESTIONS.items():
        page = f"chapters/{chapter}"
        title = _link(app, docname, page, app.env.titles[page].astext())
        found.append(nodes.rubric("", "", title))
        listed = nodes.enumerated_list(enumtype="arabic", suffix=".")
        for question in questions:
            answers = nodes.bullet_list()
            for number, answer in enumerate(question.answers):
                kind = (
                    nodes.strong if number == question.right else nodes.inline
                )
                where = _link(
                    app,
                    docname,
                    page,
                    answer.section,
                    f"#{anchor(answer.section)}",
                )
                line = [
                    kind("", f"{LETTERS[number]}) {answer.text}"),
                    nodes.Text(f" {answer.because} ("),
                ]
                answers += nodes.list_item(
                    "", nodes.paragraph("", "", *line, where, nodes.Text(")"))
                )
            listed += nodes.list_item(
                "", nodes.paragraph("", question.asks), answers
            )
        found.append(listed)
    return found


def fill_in(app, doctree, docname):
    """Replaces each placeholder, once all chapters have been read and their times are known."""
    for placeholder in list(doctree.findall(RunningTimes)):
        placeholder.replace_self(_times_table(app, docname))
    for placeholder in list(doctree.findall(QuizAnswers)):
        placeholder.replace_self(_quiz_answers(app, docname))
    # A chapter's header links to the table; its own line of the table is what the reader wants to see there.
    for link in doctree.findall(nodes.reference):
        if not link.get("refuri", "").endswith("#running-times"):
            continue
        minutes, seconds = _times(app.env, docname)
        if seconds is not None:
            text = f"{minutes} minutes to read, {seconds:.0f} s to run"
            link.children = [nodes.Text(text)]


def drop_widget_state(app, env):
    """The state of ipywidgets serves a runtime that the pages do not load, and its random ids differ by build."""
    for data in NbMetadataCollector.get_doc_data(env).values():
        data.get("js_files", {}).pop("ipywidgets_state", None)


def write_assets(app):
    """Puts the Explorer's scripts where Sphinx copies static files from."""
    folder = Path(app.outdir).parent / "assets"
    explorer.write_assets(folder)
    app.config.html_static_path.append(str(folder))


def add_scripts(app, page, template, context, doctree):
    """A page loads what its own figures need; Vega, which is heavy, an Explorer loads itself when it starts."""
    body = context.get("body", "")
    kinds = [
        kind for kind in KINDS if f'class="nl-interactive nl-{kind} ' in body
    ]
    if kinds:
        app.add_css_file("interactive.css")
        app.add_js_file("interactive.js", defer="defer")
    for kind in kinds:
        app.add_css_file(f"{kind}.css")
        app.add_js_file(f"{kind}.js", defer="defer")


def _plain_tokens():
    """Classes of code's tokens that both styles draw as they draw the text around them."""
    styles = [
        get_style_by_name(f"a11y-high-contrast-{theme}")
        for theme in ("light", "dark")
    ]

    def same(token):
        return all(
            style.style_for_token(token) == style.style_for_token(Text)
            for style in styles
        )

    return sorted(
        name for token, name in STANDARD_TYPES.items() if name and same(token)
    )


# What is wrong or slow in the pages as they are written, and what stands there instead.
MENDS = (
    # Icon fonts preloaded in a mode that browsers refuse for files on disk, an error on every page.
    (r'<link rel="preload" as="font"[^>]*>\s*', ""),
    # Logo and search stand outside every landmark, where a screen reader that goes by landmarks misses them.
    (
        r'<div class="bd-sidebar-primary bd-sidebar( [^"]*)?">',
        r'<div class="bd-sidebar-primary bd-sidebar\1" role="complementary" aria-label="Book">',
    ),
    # A role that went out of use, inside a list that wants list items.
    (
        r'(<div class="citation"[^>]*) role="doc-biblioentry"',
        r'\1 role="listitem"',
    ),
    # A name for speech that is not the one that is seen.
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # Scripts that hold the first picture up. In their order after the page is read they do the same.
    (
        r'<script src="((?:\.\./)*_static/[^"]+|searchindex\.js)"></script>',
        r'<script defer="defer" src="\1"></script>',
    ),
    # The theme decides between light and dark late, when all has been styled for neither. Here too: a page opened at a
    # place within it is laid out whole (book.css), so that the heights above that place are right.
    (
        r'dataset\.theme = localStorage\.getItem\("theme"\) \|\| "auto";',
        'dataset.theme = (localStorage.getItem("mode") || "auto") !== "auto" ? localStorage.getItem("mode")'
        ' : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";'
        ' if (location.hash) document.documentElement.dataset.whole = "";',
    ),
    # More than half of a chapter's elements: tokens of code that look like the text around them.
    (rf'<span class="(?:{"|".join(_plain_tokens())})">([^<]*)</span>', r"\1"),
)

# matplotlib's drawings, half of a chapter's bytes: files that a browser fetches when their place comes near, one in the
# ink of either theme. `loading` stands before `src`, or some browsers fetch at once.
DRAWING = re.compile(
    r'<svg\b[^>]* viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]* fill="currentColor" aria-hidden="true">(?s:(.*?))</svg>'
)
PLACE = (
    '<img class="nl-{theme} dark-light" loading="lazy" src="{address}" '
    'width="{width:.0f}" height="{height:.0f}" alt=""{hidden}>'
)
FILE = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width:g}" '
    'height="{height:g}" viewBox="0 0 {width:g} {height:g}" color="{ink}" fill="currentColor">{drawn}</svg>\n'
)
NAMED = re.compile(r"drawing-[0-9a-f]{12}-(?:light|dark)\.svg")
INK = {"light": "#222832", "dark": "#ced6dd"}  # the theme's text


# Names that scripts within the page use, which would wait for a file so small: they stand in the page.
NAMES = r'<script src="[./]*_static/documentation_options\.js[^"]*"></script>'
# The theme measures every box of code of the page when it opens, so that all must be laid out; book.js sees to these.
SCRIPT = "scripts/pydata-sphinx-theme.js"
MEASURED = '"pre, .nboutput > .output_area, .cell_output > .output, .jp-RenderedHTMLCommon"'
UNMEASURED = '"nl-none"'


def _as_files(text, images, up):
    """A page's text with its drawings, written into the folder images, as pictures; up leads to the folder of both."""

    def place(drawing):
        width, height = map(float, drawing.groups()[:2])
        digest = hashlib.sha256(drawing[0].encode()).hexdigest()[:12]
        images.mkdir(exist_ok=True)
        placed = ""
        for theme, ink in INK.items():
            file = images / f"drawing-{digest}-{theme}.svg"
            content = FILE.format(
                width=width, height=height, ink=ink, drawn=drawing[3]
            )
            file.write_text(content, encoding="utf-8")
            placed += PLACE.format(
                theme=theme,
                address=f"{up}{images.name}/{file.name}",
                width=width,
                height=height,
                # for views without the page's style sheet
                hidden="" if theme == "light" else " hidden",
            )
        return placed

    return DRAWING.sub(place, text)


def mend_pages(app, error):
    """Applies MENDS to the pages written, takes their drawings out, and from the theme's script what book.js does."""
    if error is None and app.builder.format == "html":
        script = Path(app.outdir) / "_static" / SCRIPT
        code = script.read_text(encoding="utf-8")
        if MEASURED not in code and UNMEASURED not in code:
            raise ExtensionError(
                f"{SCRIPT} has no {MEASURED} any more; see whether it still measures boxes of code"
            )
        code = code.replace(MEASURED, UNMEASURED).partition(
            "//# sourceMappingURL"
        )[0]  # it maps the code as it was
        script.write_text(code, encoding="utf-8")
        names = Path(app.outdir) / "_static" / "documentation_options.js"
        written = f"<script>{names.read_text(encoding='utf-8')}</script>"
        images, wanted = Path(app.outdir) / "_images", set()
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            text = re.sub(NAMES, lambda _: written, text)
            for wrong, right in MENDS:
                text = re.sub(wrong, right, text)
            up = "../" * len(page.relative_to(app.outdir).parents[:-1])
            text = _as_files(text, images, up)
            wanted |= set(NAMED.findall(text))
            page.write_text(text, encoding="utf-8")
        for file in images.glob("drawing-*.svg"):
            if NAMED.fullmatch(file.name) and file.name not in wanted:
                file.unlink()


def setup(app):
    app.add_node(RunningTimes)
    app.add_directive("running-times", RunningTimesDirective)
    app.connect("builder-inited", write_assets)
    app.connect("env-updated", drop_widget_state)
    app.add_node(QuizAnswers)
    app.add_directive("quiz-answers", QuizAnswersDirective)
    app.connect("doctree-resolved", fill_in)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
