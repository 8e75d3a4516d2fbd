"""Writes the book's notebooks as they are published: executed, without MyST, ready for Colab, GitHub and Jupyter.

`python -m tools.publish`, the last step of `make book`, takes the outputs of the build and writes
`_build/published/chapters/*.ipynb`; the same files are what the download buttons of the built pages give:

- the first cell makes `normlib` importable (tools/setup_cell.py), on Colab by a shallow clone of the published branch:
  that brings the recorded runs and style sheets, which a wheel would lack, and leaves Colab's packages alone;
- Markdown is converted by tools/plain.py, and the works cited are listed at the end;
- a picture is stored as PNG with its alternative text, which every front end shows, its caption under it;
- an interactive figure is stored as a still picture that a script, stored with it, turns into the book's figure. Vega
  comes from a pinned address and is checked against its hash. Run on Colab, the cell shows the live widget instead.

The built HTML itself has none of this: it asks the network for nothing.
"""

import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from jupyter_cache import get_cache

from normlib.interactive import KINDS, STATIC
from tools import notebooks
from tools.plain import NOT_PUBLISHED, Book, Converter, Page, PublishError

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "chapters" / "_ext"))
import repository  # noqa: E402  beside the extension that makes the buttons of the same address

OUT = ROOT / "_build" / "published" / "chapters"
DOWNLOADS = ROOT / "_build" / "html" / "_sources" / "chapters"
SETUP = "setup"  # tag and id of the first cell
# Vega as npm has it; the hash is `openssl dgst -sha384 -binary build/vega.min.js | base64`. The version is that of
# vl-convert's own copy, which the book serves: a test compares.
VEGA_VERSION = "6.2.0"
VEGA = {
    "address": f"https://cdn.jsdelivr.net/npm/vega@{VEGA_VERSION}/build/vega.min.js",
    "integrity": "sha384-0Wc8+KeboSkAq/fK81pd4uFbWKu4ouB+y4KWCYxlC69hRWol7vnc6zZSruXOtc0F",
}


def setup_cell(address: str):
    """The first cell; `address` is the repository's, or "" where none is set."""
    source = (ROOT / "tools" / "setup_cell.py").read_text(encoding="utf-8").rstrip()
    name = address.rpartition("/")[2] or "book"
    for word, value in (("ADDRESS", address), ("NAME", name), ("BRANCH", repository.PUBLISHED)):
        source = re.sub(rf"\b{word}\b", value, source)
    cell = nbformat.v4.new_code_cell(source, id=SETUP)
    cell.metadata = _hidden({"tags": [SETUP]})
    return cell


def _hidden(metadata: dict) -> dict:
    """A code cell's metadata with which Colab and JupyterLab fold its source."""
    return {**metadata, "cellView": "form", "jupyter": {"source_hidden": True}}


def publish(page: Page, executed, book: Book, address: str):
    """The notebook of a page as it is published, as a new object.

    Args:
        executed: the page's notebook with the outputs of a run.

    Raises:
        PublishError: something in a cell has no published form.
    """
    convert = Converter(book, page)
    cells = [setup_cell(address)]
    for number, old in enumerate(executed.cells, start=1):
        where = notebooks.place(page.path, number, old)
        if old.cell_type == "markdown":
            source = convert(old.source, where)
            if number == 1 and address:
                source = _badge(source, repository.colab(address, page.name))
            cells.append(nbformat.v4.new_markdown_cell(source, id=old.id))
            continue
        cell = nbformat.v4.new_code_cell(old.source, id=old.id)
        tags = old.metadata.get("tags", [])
        cell.metadata = _hidden({"tags": tags}) if "hide-input" in tags else {"tags": tags} if tags else {}
        for output in old.outputs:
            cell.outputs += _output(output, convert, where)
        cells.append(cell)
    if convert.cited:
        works = "\n".join(f"- {book.reference(key)}" for key in convert.cited)
        cells.append(nbformat.v4.new_markdown_cell(f"## References\n\n{works}", id="references"))
    count = 0
    for cell in cells[1:]:
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    metadata = {
        "kernelspec": notebooks.KERNEL,
        "language_info": {"name": "python"},
        "colab": {"name": page.file, "provenance": [], "toc_visible": True},
    }
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return notebook


def _badge(source: str, url: str) -> str:
    title, _, rest = source.partition("\n")
    return f"{title}\n\n[Open this notebook in Colab]({url})\n{rest}"


def _output(output, convert: Converter, where: str) -> list:
    """An output as it is published, a picture's caption being an output of its own."""
    if output.output_type == "error" or output.get("name") == "stderr":
        raise PublishError(f"{where}: an error or stderr is among its outputs; remove its cause and run `make book`")
    if output.output_type == "stream":
        return [output]
    data = dict(output.data)
    output = nbformat.from_dict({**output, "data": data, "metadata": {}})
    after = []
    if "text/markdown" in data:
        data["text/markdown"] = convert(data["text/markdown"], where)
    if "text/html" in data:
        figure = BeautifulSoup(_linked(data["text/html"]), "html.parser").find("figure")
        classes = figure.get("class", []) if figure else []
        if "nl-interactive" in classes:
            data["text/html"] = _interactive(figure, data.get("image/png"), where)
        elif "nl-figure" in classes:
            # Colab shows HTML rather than PNG, GitHub drops the drawing in the HTML: only the PNG is right everywhere.
            del data["text/html"]
            output.metadata = {"image/png": {"alt": figure.find(role="img")["aria-label"]}}
            if caption := figure.find("figcaption"):
                text = {"text/markdown": f"*{caption.get_text()}*", "text/plain": caption.get_text()}
                after = [nbformat.v4.new_output("display_data", data=text)]
    output.data = data
    return [output, *after]


def _linked(markup: str) -> str:
    """Figures' HTML with links that lead to notebooks; one within the page has nowhere to lead and leaves its text."""
    less, quote = r"(?:<|\\u003c)", r'\\?"'  # as they stand in HTML, and in the JSON that it embeds
    markup = re.sub(rf"{less}a href={quote}#.*?>(.*?){less}/a>", r"\1", markup)
    return re.sub(rf"({less}a href={quote}[\w-]+)\.html", r"\1.ipynb", markup)


def _interactive(figure, png: str | None, where: str) -> str:
    """An interactive figure's HTML for a notebook: the still picture, and the script that turns it into the figure."""
    kind = next((k for k in KINDS if f"nl-{k}" in figure["class"]), None)
    if kind is None:
        raise PublishError(f"{where}: figure of classes {figure['class']}; name its kind in normlib/interactive.py")
    still = figure.find(class_="nl-still")
    if png:
        alt = still.get("aria-label")
        if not alt:
            raise PublishError(f"{where}: the picture of an nl-{kind} has no text; give its .nl-still an aria-label")
        source = f"data:image/png;base64,{''.join(png.split())}"
        first = f'<img src="{source}" alt="{html.escape(alt)}" style="max-width:100%">'
    else:
        first = f"<{still.name}>{still.decode_contents()}</{still.name}>"
    still.clear()
    values = {
        "id": f"{figure['id']}-host",
        "kind": kind,
        "figure": str(figure),
        "style": "".join((STATIC / name).read_text(encoding="utf-8") for name in ("interactive.css", f"{kind}.css")),
        "vega": VEGA,
    }
    # "<" would be read as a tag, and "</script>" end the script, wherever it stands in a string.
    text = json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")
    loader = (ROOT / "tools" / "published.js").read_text(encoding="utf-8").rstrip()
    start = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("interactive.js", f"{kind}.js"))
    return f'<div id="{values["id"]}">{first}</div><script>{loader}({text}, function () {{\n{start}}});</script>'


def executed(page: Page, cache):
    """(the page's notebook with the outputs of the last build, its seconds or None)."""
    if page.path.suffix == ".md":
        cell = nbformat.v4.new_markdown_cell(page.path.read_text(encoding="utf-8"), id="text")
        return nbformat.v4.new_notebook(cells=[cell]), None
    notebook = notebooks.read(page.path)
    try:
        record = cache.match_cache_notebook(notebook)
    except KeyError as error:
        raise PublishError(f"{page.path.name}: changed since it was last run; run `make book`") from error
    _, notebook = cache.merge_match_into_notebook(notebook)
    return notebook, record.data["execution_seconds"]


def main() -> None:
    try:
        address = repository.address()
        book = Book()
        cache = get_cache(str(ROOT / "_build" / ".jupyter_cache"))
        pages = [page for page in book.pages.values() if page.name not in NOT_PUBLISHED]
        runs = {page.name: executed(page, cache) for page in pages}
        for name, (notebook, seconds) in runs.items():
            if seconds is not None:
                book.times[name] = (book.minutes(notebook), seconds)
        texts = {page.file: notebooks.dumps(publish(page, runs[page.name][0], book, address)) for page in pages}
    except (PublishError, notebooks.NotebookError, ValueError) as error:
        sys.exit(str(error))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for name, text in texts.items():
        (OUT / name).write_text(text, encoding="utf-8", newline="\n")
        if (DOWNLOADS / name).exists():  # not of a page that is no notebook: its button gives Markdown
            shutil.copy(OUT / name, DOWNLOADS / name)
    print(f"{len(texts)} notebooks in {os.path.relpath(OUT, ROOT)}, {sum(map(len, texts.values())) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
