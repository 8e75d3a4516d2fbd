"""What this book adds to Sphinx: the Explorer's scripts, the table of running times, and nothing from the network."""

import re
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.util.docutils import SphinxDirective

from normlib import explorer


class RunningTimes(nodes.General, nodes.Element):
    """Stands for the table until every chapter has run."""


class RunningTimesDirective(SphinxDirective):
    """`running-times`: how long each chapter took when this book was built, in seconds."""

    def run(self):
        return [RunningTimes()]


def _table(rows):
    """A docutils table of (cell, cell) rows, the first one its header; a cell is a list of inline nodes."""
    group = nodes.tgroup(cols=2)
    group += [nodes.colspec(colwidth=width) for width in (70, 30)]
    head, body = nodes.thead(), nodes.tbody()
    for number, row in enumerate(rows):
        entries = [
            nodes.entry("", nodes.paragraph("", "", *cell)) for cell in row
        ]
        (body if number else head).append(nodes.row("", *entries))
    group += [head, body]
    return nodes.table("", group, classes=["colwidths-auto", "nl-times"])


def fill_tables(app, doctree, docname):
    """Replaces each placeholder, once all chapters have been read and their times are known."""
    for placeholder in list(doctree.findall(RunningTimes)):
        rows = [([nodes.Text("chapter")], [nodes.Text("seconds")])]
        total = 0.0
        for chapter in sorted(NbMetadataCollector.get_doc_data(app.env)):
            ran = NbMetadataCollector.get_exec_data(app.env, chapter)
            if not ran:
                continue
            total += ran["runtime"]
            title = app.env.titles[chapter].astext()
            link = nodes.reference(
                "",
                title,
                internal=True,
                refuri=app.builder.get_relative_uri(docname, chapter),
            )
            rows.append(([link], [nodes.Text(f"{ran['runtime']:.1f}")]))
        rows.append(([nodes.Text("all")], [nodes.Text(f"{total:.1f}")]))
        placeholder.replace_self(_table(rows))


def write_assets(app):
    """Puts the Explorer's scripts where Sphinx copies static files from."""
    folder = Path(app.outdir).parent / "assets"
    explorer.write_assets(folder)
    app.config.html_static_path.append(str(folder))


def drop_widget_state(app, env):
    """The state of ipywidgets serves a runtime that the pages do not load, and its random ids differ by build."""
    for data in NbMetadataCollector.get_doc_data(env).values():
        data.get("js_files", {}).pop("ipywidgets_state", None)


def add_scripts(app, page, template, context, doctree):
    """A page loads what its own figures need; Vega, which is heavy, only with an Explorer."""
    body = context.get("body", "")
    kinds = [
        kind
        for kind in ("explorer", "cube", "design", "guide", "quiz")
        if f'class="nl-interactive nl-{kind} ' in body
    ]
    if kinds:
        app.add_css_file("interactive.css")
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
    app.connect("doctree-resolved", fill_tables)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
