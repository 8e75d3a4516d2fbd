"""What this book adds to Sphinx: scripts of figures, what takes how long, answers of the quiz; nothing from outside."""

import re
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
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
    """A page loads what its own figures need; Vega, which is heavy, only with an Explorer."""
    body = context.get("body", "")
    kinds = [
        kind for kind in KINDS if f'class="nl-interactive nl-{kind} ' in body
    ]
    if kinds:
        app.add_css_file("interactive.css")
        app.add_js_file("interactive.js", defer="defer")
    if "explorer" in kinds:
        app.add_js_file("vega.js", defer="defer")
    for kind in kinds:
        app.add_css_file(f"{kind}.css")
        app.add_js_file(f"{kind}.js", defer="defer")


# What the theme leaves wrong in every page, and what stands there instead.
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
    # Scripts that hold the first picture up. In their order after the page is read they do the same; only the first,
    # a few names, is used by scripts within the page.
    (
        r'<script src="((?:\.\./)*_static/(?!documentation_options)[^"]+|searchindex\.js)"></script>',
        r'<script defer="defer" src="\1"></script>',
    ),
    # So do the icons of the header, a sixth of all style sheets.
    (
        r'<link href="([^"]+/fontawesome/[^"]+\.css[^"]*)" rel="stylesheet" />',
        r"""<link href="\1" rel="stylesheet" media="print" onload="this.media='all'" />"""
        r'<noscript><link href="\1" rel="stylesheet" /></noscript>',
    ),
)


def mend_pages(app, error):
    """Applies MENDS to the pages written."""
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            for wrong, right in MENDS:
                text = re.sub(wrong, right, text)
            page.write_text(text, encoding="utf-8")


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
