"""MyST Markdown, as the chapters are written, in the Markdown that Colab, GitHub and Jupyter all show.

Directives, roles, labels and footnotes become headings, folded parts and links; everything else stays as the author
wrote it, line by line. What has no such form is an error that names the file, the cell and the remedy: nothing that
only Sphinx understands gets into a published notebook.

sphinx-tojupyter, the converter there is, asks for Python 3.11, makes notebooks anew from Sphinx's tree, leaves outputs
out and knows no dropdown. Here blocks are found by MyST-Parser, and works are formatted
by pybtex.
"""

import html
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from pybtex.backends.markdown import Backend
from pybtex.database import BibliographyData, parse_file
from pybtex.style.formatting.unsrt import Style

from tools import notebooks, toc

ROOT = Path(__file__).resolve().parent.parent
# Pages that Sphinx makes from docstrings, the bibliography and the quizzes' data.
NOT_PUBLISHED = ("chapters/api", "chapters/references", "chapters/instructors")
ADMONITIONS = ("admonition", "attention", "caution", "danger", "error", "hint")
ADMONITIONS += ("important", "note", "seealso", "tip", "warning")
FOLDED = ("dropdown", "solution", "toggle")
FENCES = ("fence", "colon_fence")
STYLE = Style()  # once: pybtex looks through all that is installed for each


class PublishError(ValueError):
    """What cannot be published: the message names the file, the cell and the remedy."""


@dataclass
class Page:
    """A page of the table of contents; `number` is its chapter's, None for an unnumbered page."""

    name: str
    path: Path
    number: int | None
    title: str = ""

    @property
    def file(self) -> str:
        return f"{Path(self.name).name}.ipynb"


@dataclass
class Book:
    """What pages refer to: each other, equations, labels, terms, works, and how long a chapter runs.

    Raises PublishError for a notebook that is none, or a label defined twice.
    """

    root: Path = ROOT
    pages: dict[str, Page] = field(default_factory=dict)  # by name without folder and suffix
    equations: dict[str, tuple[Page, str]] = field(default_factory=dict)
    targets: dict[str, Page] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)  # of the heading or the table that a label stands before
    terms: dict[str, Page] = field(default_factory=dict)
    times: dict[str, tuple[int, float]] = field(default_factory=dict)  # minutes to read a page, seconds to run it

    def __post_init__(self):
        settings = yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8"))
        extensions = set(settings["parse"]["myst_enable_extensions"])
        pace = settings["sphinx"]["config"]["myst_words_per_minute"]
        config = MdParserConfig(enable_extensions=extensions, dmath_double_inline=True, words_per_minute=pace)
        self.parser = create_md_parser(config, RendererHTML)
        self.works = BibliographyData(entries={})
        for name in settings["bibtex_bibfiles"]:
            self.works.add_entries(parse_file(str(self.root / name)).entries.items())
        for page in _pages(self.root):
            self.pages[Path(page.name).name] = page
            if page.name not in NOT_PUBLISHED:
                self._scan(page)

    def cells(self, page: Page) -> list:
        """The page's cells; a page that is no notebook is one Markdown cell."""
        if page.path.suffix == ".md":
            return [notebooks.nbformat.v4.new_markdown_cell(page.path.read_text(encoding="utf-8"), id="text")]
        try:
            return notebooks.read(page.path).cells
        except notebooks.NotebookError as error:
            raise PublishError(str(error)) from error

    def blocks(self, text: str, count: dict | None = None) -> Iterator:
        """The block tokens of a text, those inside its directives after the directive.

        `count` collects, as the parser's environment, the words of what is read.
        """
        for token in self.parser.parse(text, count):
            yield token
            if (found := _directive(token)) and found[0] != "code-block":
                self.parser.parseInline(found[1], count)
                yield from self.blocks(_options(token.content)[1], count)

    def minutes(self, notebook) -> int:
        """How long a notebook takes to read, as Sphinx counts it: text, and what cells give as Markdown."""
        count: dict = {}
        for cell in notebook.cells:
            outputs = [output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", [])]
            for text in [cell.source] if cell.cell_type == "markdown" else outputs:
                list(self.blocks(text, count))
        return count.get("wordcount", {"minutes": 0})["minutes"]

    def _scan(self, page: Page) -> None:
        count = 0
        for cell in self.cells(page):
            if cell.cell_type != "markdown":
                continue
            tokens = list(self.blocks(cell.source))
            if not page.title:
                page.title = next((t.content for t in tokens if t.type == "inline"), page.name)
            for i, token in enumerate(tokens):
                name, title = _directive(token) or ("", "")
                options = _options(token.content)[0] if name else {}
                label = options.get("label") if name == "math" else None
                if label := token.info if token.type == "math_block_label" else label:
                    count += 1
                    number = str(count) if page.number is None else f"{page.number}.{count}"
                    self._define(self.equations, label, (page, number), page)
                elif token.type == "myst_target" or options.get("name"):
                    label = options.get("name") or token.content
                    self._define(self.targets, label, page, page)
                    heading = [t.type for t in tokens[i + 1 : i + 3]] == ["heading_open", "inline"]
                    self.titles[label] = tokens[i + 2].content if heading else title
                elif token.type == "inline":
                    for label in filter(None, (c.attrGet("id") for c in token.children if c.type == "span_open")):
                        self._define(self.targets, label, page, page)
                elif name == "glossary":
                    self.terms |= {t: page for term, _ in _entries(_options(token.content)[1]) for t in term}

    @staticmethod
    def _define(table: dict, label: str, value, page: Page) -> None:
        if label in table:
            raise PublishError(f"{page.path.name}: label {label!r} is defined twice in the book; rename one")
        table[label] = value

    def author_year(self, key: str) -> str:
        """Ioffe and Szegedy, 2015."""
        work = self.works.entries[key]
        people = work.persons.get("author") or work.persons["editor"]
        names = [" ".join(str(part) for part in person.rich_last_names) for person in people]
        named = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        return f"{named}, {work.fields['year']}"

    def link(self, key: str) -> str | None:
        """Where a work can be read, as its entry says; None where it does not."""
        fields = self.works.entries[key].fields
        if "doi" in fields:
            return f"https://doi.org/{fields['doi']}"
        return f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else fields.get("url")

    def reference(self, key: str) -> str:
        """The full reference in Markdown."""
        (entry,) = STYLE.format_bibliography(BibliographyData(entries={key: self.works.entries[key]}))
        text = " ".join(entry.text.render(Backend()).split())
        return re.sub(r"\\([.()\-])", r"\1", text)  # harmless inside a line, and \\( may be taken for a formula's


def _pages(root: Path) -> Iterator[Page]:
    for name, number in toc.pages(root):
        found = [path for suffix in (".ipynb", ".md") if (path := root / f"{name}{suffix}").exists()]
        if not found:
            raise PublishError(f"_toc.yml: no page {name}.ipynb or {name}.md")
        yield Page(name, found[0], number)


# ---- the pieces of MyST --------------------------------------------------------------------------------------------


def _directive(token) -> tuple[str, str] | None:
    """(name, argument) of a token that is a directive."""
    found = re.fullmatch(r"\{([\w:.-]+)\}\s*(.*)", token.info.strip()) if token.type in FENCES else None
    return found and (found[1], found[2])


def _options(content: str) -> tuple[dict[str, str], str]:
    """A directive's `:key: value` lines, and what follows them."""
    lines, options = content.split("\n"), {}
    while lines and (found := re.fullmatch(r":([\w-]+):\s*(.*)", lines[0])):
        options[found[1]] = found[2]
        lines.pop(0)
    return options, "\n".join(lines).strip("\n")


def _entries(content: str) -> Iterator[tuple[list[str], str]]:
    """A glossary's entries: terms, one a line, and the indented definition under them."""
    for block in re.findall(r"(?:^\S.*\n?)+(?:[ \t]+\S.*\n?|[ \t]*\n)*", content, flags=re.M):
        terms, definition = re.fullmatch(r"((?:\S.*\n?)+)((?s:.*))", block).groups()
        lines = textwrap.dedent(definition).strip()
        yield [term.split(" : ")[0].strip() for term in terms.strip().split("\n")], lines


MATH = r"(?<!\\)\$\$.+?\$\$|(?<![\\$])\$(?:\\.|[^$\\])+?\$"
INLINE = re.compile(
    rf"""(?P<role>\{{(?P<name>[\w:.+-]+)\}}(?P<tick>`+)(?P<body>.+?)(?P=tick))
    |(?P<code>(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))
    |(?P<math>{MATH})
    |(?P<image>!\[[^\]]*\]\((?P<source>[^)\s]+)[^)]*\))
    |(?P<span>\[(?P<text>(?:\$[^$]+\$|[^\[\]$])+)\]\{{(?P<attributes>[^{{}}]*)\}})
    |(?P<link>(?<=\])\((?P<target>[^()\s]+)(?P<rest>\s+"[^"]*")?\))
    |(?P<note>\[\^(?P<label>[^\]\s]+)\](?P<colon>:\s*)?)
    |(?P<substitution>\{{\{{.*?\}}\}})""",
    re.VERBOSE | re.DOTALL,
)


def _math(text: str) -> str:
    """A formula in which no `<` can be taken for the beginning of a tag."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\lt ", text)


def _one_line(text: str) -> str:
    """The same text with every formula on one line: in a quotation its lines would begin with `>`.

    What stands between fences is code, where a dollar is a dollar.
    """
    item = r"(?:(?:[-+*]|\d+[.)])[ \t]+)*"  # a fence may open in a list
    fenced = rf"(?P<fenced>^[ \t>]*{item}(?P<fence>`{{3,}}|~{{3,}}).*?^[ \t>]*(?P=fence))"
    join = lambda found: found[0] if found["fenced"] else " ".join(found[0].split())  # noqa: E731
    return re.sub(f"{fenced}|{MATH}", join, text, flags=re.DOTALL | re.MULTILINE)


class Converter:
    """Converts the Markdown of one page; `cited` lists the works it has met, in order."""

    def __init__(self, book: Book, page: Page):
        self.book, self.page = book, page
        self.cited: dict[str, None] = {}
        self.notes: dict[str, int] = {}
        self.where = page.path.name
        self.directive = ""

    def __call__(self, text: str, where: str) -> str:
        """The text as it is published; `where` names its place in messages."""
        self.where = where
        text = self._blocks(text).strip("\n")
        self._check(text)
        return text

    def fail(self, problem: str, remedy: str):
        raise PublishError(f"{self.where}: {problem}; {remedy}")

    def _check(self, text: str) -> None:
        """What the rules for a paragraph do not see, since it is written in another of Markdown's ways."""
        for token in self.book.parser.parse(text):
            children = token.children or []
            for t, after in zip([token, *children], [*children, None], strict=True):
                if t.type == "link_open":
                    self._check_address(t.attrs["href"])
                    if after.type == "link_close":
                        self.fail(
                            f"link to {t.attrs['href']!r} without text, which Sphinx alone fills in", "give it one"
                        )
                elif t.type == "image":
                    self._check_address(t.attrs["src"])
                elif t.type in ("html_inline", "html_block"):
                    for address in re.findall(r"""\b(?:href|src)\s*=\s*["']?([^"'\s>]*)""", t.content):
                        self._check_address(address)

    def _check_address(self, address: str) -> None:
        files = {page.file for page in self.book.pages.values() if page.name not in NOT_PUBLISHED}
        if not re.match(r"(https?|mailto|data|attachment):|#", address) and address.partition("#")[0] not in files:
            self.fail(
                f"address {address!r}, which leads nowhere from a notebook",
                "write a link as [text](page.md), draw a picture in a code cell",
            )

    # ---- blocks ------------------------------------------------------------------------------------------------

    def _blocks(self, text: str) -> str:
        lines = text.split("\n")
        edits: dict[int, tuple[int, list[str] | None]] = {}  # first line -> (end, new lines or None: as they are)
        for token in self.book.parser.parse(text):
            if token.map is None:
                continue
            start, end = token.map
            new = self._block(token)
            if new is not False:
                while end > start + 1 and not lines[end - 1].strip():  # a block's map may take blank lines along
                    end -= 1
                prefix = re.match(r"[ \t>]*", lines[start])[0]
                edits[start] = (end, new if new is None else [f"{prefix}{line}".rstrip() for line in new])
        out: list[str] = []
        chunk: list[str] = []

        def flush():
            if chunk:
                out.extend(INLINE.sub(self._inline, "\n".join(chunk)).split("\n"))
                chunk.clear()

        i = 0
        while i < len(lines):
            if i in edits:
                flush()
                end, new = edits[i]
                out += lines[i:end] if new is None else new
                i = end
            else:
                if lines[i].strip():
                    chunk.append(lines[i])
                else:
                    flush()
                    out.append(lines[i])
                i += 1
        flush()
        return "\n".join(out)

    def _block(self, token) -> list[str] | bool | None:
        """The lines in place of a block; None keeps its own, False leaves them to the inline rules."""
        if found := _directive(token):
            name, argument = found
            options, content = _options(token.content)
            self.directive = name
            make = DIRECTIVES.get(name)
            if make is None:
                known = ", ".join(DIRECTIVES)
                self.fail(
                    f"directive {{{name}}} has no form in a published notebook (known: {known})",
                    "write it otherwise, or give it one in DIRECTIVES of tools/plain.py",
                )
            return make(self, argument, content, options).split("\n")
        kind = token.type
        if kind in ("math_block", "math_block_label"):
            tag = f"\n\\tag{{{self.book.equations[token.info][1]}}}" if kind == "math_block_label" else ""
            return f"$$\n{_math(token.content.strip())}{tag}\n$$".split("\n")
        if kind == "myst_target":
            return [f'<a name="{html.escape(token.content)}"></a>', ""]
        if kind in ("myst_line_comment", "myst_block_break", "front_matter"):
            return []
        if kind in ("fence", "code_block", "html_block"):
            return None
        if kind == "amsmath":
            self.fail("an environment outside $$, which GitHub and Colab show as text", "put it into $$ … $$")
        if kind in ("dl_open", "colon_fence", "substitution_block"):
            self.fail(
                f"{kind} at {token.content[:40]!r} is MyST's alone", "write it out, or as a list or an admonition"
            )
        return False

    def _admonition(self, argument, content, options):
        title = INLINE.sub(self._inline, argument or self.directive.capitalize())
        body = _one_line(f"**{title}**\n\n{self._blocks(content)}")
        return "\n".join(f"> {line}".rstrip() for line in body.split("\n"))

    def _folded(self, argument, content, options):
        # Markdown is not read inside <summary>.
        title = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(argument or "Solution", quote=False))
        return f"<details>\n<summary>{title}</summary>\n\n{self._blocks(content)}\n\n</details>"

    def _exercise(self, argument, content, options):
        return f"{self._anchor(options, 'label')}**Exercise: {argument}**\n\n{self._blocks(content)}"

    def _table(self, argument, content, options):
        title = f"**{INLINE.sub(self._inline, argument)}**\n\n" if argument else ""
        return f"{self._anchor(options, 'name')}{title}{self._blocks(content)}"

    def _math_directive(self, argument, content, options):
        label = options.get("label")
        tag = f"\n\\tag{{{self.book.equations[label][1]}}}" if label else ""
        return f"$$\n{_math(content.strip())}{tag}\n$$"

    def _code(self, argument, content, options):
        return f"```{argument}\n{content}\n```"

    def _glossary(self, argument, content, options):
        lines = []
        for terms, text in _entries(content):
            anchors = "".join(f'<a name="{_term_label(term)}"></a>' for term in terms)
            lines.append(f"- {anchors}**{', '.join(terms)}**: {textwrap.indent(self._blocks(text), '  ').lstrip()}")
        return "\n".join(lines)

    def _running_times(self, argument, content, options):
        rows = ["| chapter | reading, minutes | running, seconds |", "|---|---|---|"]
        for page in self.book.pages.values():
            if page.name in self.book.times:
                minutes, seconds = self.book.times[page.name]
                rows.append(f"| [{page.title}]({page.file}) | {minutes} | {seconds:.1f} |")
        reading = sum(minutes for minutes, _ in self.book.times.values())
        running = sum(seconds for _, seconds in self.book.times.values())
        return "\n".join([*rows, f"| all | {reading} | {running:.1f} |"])

    def _anchor(self, options, key) -> str:
        return f'<a name="{html.escape(options[key])}"></a>\n\n' if key in options else ""

    # ---- inside a paragraph --------------------------------------------------------------------------------------

    def _inline(self, found: re.Match) -> str:
        kinds = ("role", "code", "math", "image", "span", "link", "note", "substitution")
        kind = next(k for k in kinds if found[k])
        if kind == "role":
            return self._role(found)
        if kind == "math":
            return _math(found[0])
        if kind == "image":
            if not re.match(r"https?:|data:|attachment:", found["source"]):
                self.fail(f"picture {found['source']!r} is a file that Colab does not get", "draw it in a code cell")
        elif kind == "span":
            label = re.fullmatch(r"#([\w-]+)", found["attributes"])
            if label is None:
                self.fail(f"attributes {{{found['attributes']}}} are Sphinx's alone", "give {#label}, or drop them")
            return f'<a name="{label[1]}"></a>{INLINE.sub(self._inline, found["text"])}'
        elif kind == "link":
            return f"({self._target(found['target'])}{found['rest'] or ''})"
        elif kind == "note":
            number = self.notes.setdefault(found["label"], len(self.notes) + 1)
            return f"<sup>{number}</sup>{' ' if found['colon'] else ''}"
        elif kind == "substitution":
            self.fail(f"substitution {found[0]!r} is Sphinx's alone", "write out what it stands for")
        return found[0]

    def _target(self, target: str) -> str:
        """Where a link leads once every page is a notebook beside the others."""
        if re.match(r"[a-z]+:", target):
            return target
        path, _, fragment = target.partition("#")
        if not path:
            page = self.book.targets.get(fragment)
            if page is None:
                self.fail(f"link to #{fragment}, which no label defines", f"put ({fragment})= before its heading")
            return f"#{fragment}" if page == self.page else f"{page.file}#{fragment}"
        page = self.book.pages.get(Path(path).stem)
        if page is None or page.name in NOT_PUBLISHED:
            self.fail(f"link to {path!r}, which is not published", "name a chapter of _toc.yml, or drop the link")
        return page.file + (f"#{fragment}" if fragment else "")

    def _role(self, found: re.Match) -> str:
        name, body = found["name"], " ".join(found["body"].split())
        make: Callable | None = ROLES.get(name)
        if make is None:
            self.fail(
                f"role {{{name}}}`{body}` has no form in a published notebook (known: {', '.join(ROLES)})",
                "write it otherwise, or give it one in ROLES of tools/plain.py",
            )
        return make(self, body, found.string[: found.start()])

    def _cite(self, body, before):
        shown = []
        for key in (key.strip() for key in body.split(",")):
            if key not in self.book.works.entries:
                self.fail(f"citation of {key!r}, which has no entry", "add it to the bibliography, or mend the key")
            work = self.book.works.entries[key]
            for name, there in (
                ("author or editor", {"author", "editor"} & {*work.persons}),
                ("year", "year" in work.fields),
            ):
                if not there:
                    self.fail(f"citation of {key!r}, which has no {name}", "add it to the bibliography")
            self.cited[key] = None
            text, link = self.book.author_year(key), self.book.link(key)
            shown.append(f"[{text}]({link})" if link else text)
        # Round brackets: \\[ may be taken for a formula's. None behind another one, or where a list names works.
        bare = re.search(r"\($|^[ \t]*[-*+] +(\{cite\}`[^`]+`(,| and) )*$", before.rpartition("\n")[2])
        return "; ".join(shown) if bare else f"({'; '.join(shown)})"

    def _equation(self, body, before):
        if body not in self.book.equations:
            self.fail(f"equation {body!r} does not exist", "mend the label, or put it behind the closing $$")
        page, number = self.book.equations[body]
        return f"({number})" if page == self.page else f"[({number})]({page.file})"

    def _reference(self, body, before):
        text, label = _titled(body)
        if label in self.book.targets:
            text = text or INLINE.sub(self._inline, self.book.titles[label])
            if not text:
                self.fail(f"reference to {label!r}, which stands before no heading", f"write {{ref}}`text <{label}>`")
            return f"[{text}]({self._target('#' + label)})"
        return f"[{text or self._title(label)}]({self._target(label if '.' in label else f'{label}.md')})"

    def _title(self, name):
        page = self.book.pages.get(Path(name).stem)
        return page.title if page else name

    def _term(self, body, before):
        text, term = _titled(body)
        page = self.book.terms.get(term)
        if page is None:
            self.fail(f"term {term!r} is in no glossary", "add it, or mend the term")
        return f"[{text or term}]({'' if page == self.page else page.file}#{_term_label(term)})"


def _term_label(term: str) -> str:
    """What a glossary's entry is called in addresses, as Sphinx has it."""
    return "term-" + re.sub(r"\W+", "-", term).strip("-")


def _titled(body: str) -> tuple[str, str]:
    """("text", "target") of `text <target>`, or ("", "target")."""
    found = re.fullmatch(r"(.*\S)\s*<([^<>]+)>", body)
    return (found[1], found[2]) if found else ("", body)


DIRECTIVES = {
    **dict.fromkeys(ADMONITIONS, Converter._admonition),
    **dict.fromkeys(FOLDED, Converter._folded),
    "exercise": Converter._exercise,
    "table": Converter._table,
    "math": Converter._math_directive,
    "code-block": Converter._code,
    "glossary": Converter._glossary,
    "running-times": Converter._running_times,
}
ROLES = {
    "cite": Converter._cite,
    "cite:p": Converter._cite,
    "eq": Converter._equation,
    "ref": Converter._reference,
    "numref": Converter._reference,
    "doc": Converter._reference,
    "term": Converter._term,
}
