"""What a browser must have before it shows a page's first word, made small.

One style sheet a page in place of fifteen, without rules for what no page has, and fonts of the letters in use: of
0.4 MB of style sheets half are for other books, and of the icons' 0.16 MB, fifteen icons are drawn. The data of
Explorers, a third of a chapter, go into scripts that each loads when it comes near the window.
"""

import hashlib
import io
import re
from itertools import pairwise
from pathlib import Path

import tinycss2
from fontTools import subset
from fontTools.ttLib import TTFont

SHEET = re.compile(
    r'<link\b(?=[^>]*\brel="stylesheet")[^>]*\bhref="(?P<href>[^"?]+)[^>]*>'
)
JOINED = re.compile(
    r'<link rel="stylesheet"[^>]* data-sheets="(?P<sheets>[^"]*)">'
)
NAME = re.compile(r"[A-Za-z_][\w-]*")


def names_used(folder, pages):
    """Every word that pages or scripts have: no class can get into a page that is not among them."""
    words = set()
    for path in pages:
        text = path.read_text(encoding="utf-8")
        for value in re.findall(r'\bclass="([^"]*)"', text):
            words.update(value.split())
        for script in re.findall(r"<script[^>]*>(.*?)</script>", text, re.S):
            words.update(NAME.findall(script))
    for path in (folder / "_static").rglob("*.js"):
        words.update(NAME.findall(path.read_text(encoding="utf-8")))
    return words


def _classes(tokens):
    """The classes that an element must have to match; within parentheses, as in :not(), none is a must."""
    pairs = pairwise(tokens)
    return {b.value for a, b in pairs if a == "." and b.type == "ident"}


def _selectors(prelude):
    """The alternatives of a rule's prelude, split at its commas."""
    found = [[]]
    for token in prelude:
        found.append([]) if token == "," else found[-1].append(token)
    return found


def _kept(rules, words):
    """Rules that can match, as text; those of @media and its like without the rest."""
    for rule in rules:
        if rule.type == "qualified-rule":
            able = [s for s in _selectors(rule.prelude) if _classes(s) <= words]
            if able:
                heads = ",".join(tinycss2.serialize(s).strip() for s in able)
                yield f"{heads}{{{tinycss2.serialize(rule.content).strip()}}}"
        elif rule.type != "at-rule":
            yield rule.serialize()
        elif rule.lower_at_keyword in ("media", "supports"):
            inner = tinycss2.parse_rule_list(rule.content, True, True)
            text = "\n".join(_kept(inner, words))
            if text:
                head = tinycss2.serialize(rule.prelude).strip()
                yield f"@{rule.at_keyword} {head}{{\n{text}\n}}"
        elif rule.lower_at_keyword != "charset":
            yield rule.serialize()


def _sheet(path, words, seen=()):
    """The rules of a style sheet and of those that it imports, with the addresses of files made absolute."""
    rules = tinycss2.parse_stylesheet(
        path.read_text(encoding="utf-8"),
        skip_comments=True,
        skip_whitespace=True,
    )
    lines = []
    for rule in rules:
        if getattr(rule, "lower_at_keyword", None) == "import":
            (address,) = (
                t.value for t in rule.prelude if t.type in ("string", "url")
            )
            lines += _sheet((path.parent / address).resolve(), words)
        else:
            lines += _kept([rule], words)
    return [
        re.sub(
            r'url\("?(?!data:|/|#)([^"?)#]+)[^")]*"?\)',
            lambda m: f'url("{(path.parent / m[1]).resolve()}")',
            line,
        )
        for line in lines
    ]


def _subset(path, letters):
    """The font with these letters alone, in WOFF; whole where it has none of them (a font of empty boxes has not)."""
    font = TTFont(path, recalcTimestamp=False)
    if not letters & font.getBestCmap().keys():
        letters = set(font.getBestCmap())
    options = subset.Options(flavor="woff", layout_features="*")
    maker = subset.Subsetter(options)
    maker.populate(unicodes=letters)
    maker.subset(font)
    font.flavor = "woff"
    content = io.BytesIO()
    font.save(content)
    return content.getvalue()


def _stored(folder, name, content):
    """Stores content under a name that changes with it, and returns that name."""
    stem, _, ending = name.rpartition(".")
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:10]}.{ending}"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return name


def _with_fonts(text, static):
    """The style sheet with its fonts reduced to the letters it names, and every other file's address relative again."""
    letters = {
        int(code, 16) if code else ord(letter)
        for code, letter in re.findall(
            r'(?:content|--[\w-]+):\s*"(?:\\([0-9a-fA-F]+)\s?|([^"\\]))"', text
        )
    }

    def face(match):
        addresses = re.findall(r'url\("([^"]+)"\)', match[0])
        # A compressed WOFF2 cannot be read without another library; the icons come as TTF too.
        source = next(
            (Path(a) for a in addresses if a.endswith((".woff", ".ttf"))), None
        )
        if source is None:
            return ""
        content = _subset(source, letters)
        name = _stored(static / "fonts", f"{source.stem}.woff", content)
        rest = re.sub(r"src:[^;}]*;?", "", match[0].rstrip("}"))
        return f'{rest.rstrip("; ")};src:url("fonts/{name}") format("woff")}}'

    text = re.sub(r"@font-face\s*\{[^}]*\}", face, text)
    return text.replace(f'url("{static.resolve()}/', 'url("')


DATA = re.compile(
    r'(<figure class="nl-interactive nl-explorer (?:(?!</figure>).)*?)'
    r'<script type="application/json" class="nl-data">([^<]+)</script>',
    re.S,
)


def _without_data(text, root, static):
    """The page with each Explorer's data in a script beside it; from disk a page can load a script, but no JSON."""

    def store(match):
        name = f"{hashlib.sha256(match[2].encode()).hexdigest()[:10]}.js"
        code = f'(window.normlibData = window.normlibData || {{}})["{name}"] = {match[2]};'
        (static / "data").mkdir(exist_ok=True)
        (static / "data" / name).write_text(code, encoding="utf-8")
        return (
            f'{match[1]}<script type="application/json" class="nl-data" '
            f'data-src="{root}_static/data/{name}"></script>'
        )

    return DATA.sub(store, text)


def _sheets(text):
    """Addresses of a page's style sheets, also where an earlier build has joined them."""
    joined = JOINED.search(text)
    if joined:
        return joined["sheets"].split()
    return [match["href"] for match in SHEET.finditer(text)]


def bundle(app, error):
    """Joins the style sheets of each page, those of the same ones alike, and takes the data of Explorers out of it."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    static = folder / "_static"  # has templates of pages too
    pages = [
        p for p in sorted(folder.rglob("*.html")) if static not in p.parents
    ]
    words, made = names_used(folder, pages), {}
    for path in pages:
        text = path.read_text(encoding="utf-8")
        hrefs = _sheets(text)
        if not hrefs:
            continue
        sheets = tuple((path.parent / href).resolve() for href in hrefs)
        if sheets not in made:
            joined = "\n".join(
                line for sheet in sheets for line in _sheet(sheet, words)
            )
            content = _with_fonts(joined, static).encode()
            made[sheets] = _stored(static, "bundle.css", content)
        root = "../" * len(path.relative_to(folder).parent.parts)
        link = (
            f'<link rel="stylesheet" href="{root}_static/{made[sheets]}" '
            f'data-sheets="{" ".join(hrefs)}">'
        )
        first = SHEET.search(text)
        rest = SHEET.sub("", text[first.end() :])
        text = _without_data(text[: first.start()] + link + rest, root, static)
        path.write_text(text, encoding="utf-8")


def setup(app):
    # After the formulas are set and the theme is mended.
    app.connect("build-finished", bundle, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
