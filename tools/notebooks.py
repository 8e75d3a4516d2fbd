"""The one form in which chapters are stored, so that a difference in a notebook is a difference in what it says.

`python tools/notebooks.py [FILE ...]` runs the notebooks (all chapters by default) and stores them in that form:

- outputs hold text only: what was printed and the text/plain of results. Pictures, HTML and widgets are made when the
  book is built. A cell tagged `nbval-ignore-output`, whose text differs from run to run, keeps none.
- an id is a digest of its cell's type and source; counts go 1, 2, 3; metadata hold the kernel's name and cells' tags.

A cell that raises or writes to stderr is an error: nothing is stored.
"""

import argparse
import hashlib
import json
import os
import sys
import warnings
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
TEMPLATE = CHAPTERS / "_template.ipynb"  # what a chapter is copied from; in no table of contents
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
VOLATILE = "nbval-ignore-output"
TIMEOUT = 120  # seconds a cell, as in _config.yml
# Outputs that repeat: no progress bars, no widgets with random ids; and the networks are too small for threads.
ENVIRONMENT = {"NORMLIB_PROGRESS": "0", "NORMLIB_STATIC": "1", "OMP_NUM_THREADS": "1"}


class NotebookError(Exception):
    """A notebook that cannot be stored: the message names the file, the cell and the remedy."""


def chapters() -> list[Path]:
    """Every notebook stored here, the template among them."""
    return sorted(CHAPTERS.glob("*.ipynb"))


def numbered() -> list[Path]:
    """The chapters from 01 on: those that have exercises and a quiz."""
    return [path for path in chapters() if path.name[:2].isdigit() and path.name[:2] != "00"]


def place(path: Path, number: int, cell) -> str:
    """Where a message points: file, cell counted from 1 as a reader does, and its first line."""
    first = cell["source"].strip().split("\n")[0][:60]
    return f"{path.name}, cell {number} ({first!r})"


def _text_outputs(cell) -> list:
    """The outputs of a cell as stored: printed text merged into one, then text/plain of each result."""
    printed, results = "", []
    for output in cell.outputs:
        if output.output_type == "stream":
            printed += output.text
        elif "text/plain" in output.get("data", {}):
            plain = {"data": {"text/plain": output.data["text/plain"]}, "metadata": {}}
            if output.output_type == "execute_result":
                plain["execution_count"] = None  # set with the cell's own
            results.append(nbformat.from_dict(plain | {"output_type": output.output_type}))
    stream = [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []
    return stream + results


def normal(notebook):
    """The same notebook in the stored form, as a new object; the argument is left alone."""
    notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
    seen: dict[str, int] = {}
    count = 0
    cells = []
    for old in notebook.cells:
        source = old.source.rstrip()
        if not source:
            continue
        tags = sorted(set(old.metadata.get("tags", [])))
        metadata = {"tags": tags} if tags else {}
        digest = hashlib.sha256(f"{old.cell_type}\0{source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        identity = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell = {"cell_type": old.cell_type, "id": identity, "metadata": metadata, "source": source}
        if old.cell_type == "code":
            count += 1
            outputs = [] if VOLATILE in tags else _text_outputs(old)
            for output in outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
            # nbval compares the outputs of counted cells only, so an uncounted one would go unchecked.
            cell |= {"execution_count": count, "outputs": outputs}
        elif old.get("attachments"):
            cell["attachments"] = old.attachments
        cells.append(cell)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def dumps(notebook) -> str:
    """The text of the file that holds a notebook already in the stored form."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


def read(path: Path):
    """The notebook at path, in the present format; saved by an older tool, it is upgraded."""
    try:
        with warnings.catch_warnings():  # ids, missing or twice, are made anew by `normal`
            for kind in (nbformat.warnings.MissingIDFieldWarning, nbformat.warnings.DuplicateCellId):
                warnings.simplefilter("ignore", kind)
            return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path.name}: not a notebook ({error}); restore it from git") from error


def execute(path: Path, notebook) -> None:
    """Runs a notebook beside its file, as the book and the tests do; outputs replace those it holds.

    Raises:
        NotebookError: a cell raised, took more than TIMEOUT seconds, or wrote to stderr.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name=KERNEL["name"], resources={"metadata": {"path": str(path.parent)}}
    )
    try:
        client.execute(env=os.environ | ENVIRONMENT)
    except (CellExecutionError, CellTimeoutError) as error:
        raise NotebookError(f"{path.name}: a cell failed, nothing was stored\n{error}") from error
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise NotebookError(
                    f"{place(path, number, cell)}: wrote to stderr, nothing was stored; remove its cause\n{output.text}"
                )


def main(arguments: list[str] | None = None) -> int:
    """Runs and stores the named notebooks; returns the exit status, 1 where one could not be stored."""
    parser = argparse.ArgumentParser(description="Run notebooks and store them in their normal form.")
    parser.add_argument("files", nargs="*", type=Path, help="default: every chapter")
    parser.add_argument("--no-run", action="store_true", help="keep the outputs as they are, change the form alone")
    options = parser.parse_args(arguments)
    failed = False
    for path in options.files or chapters():
        try:
            notebook = read(path)
            if not options.no_run:
                execute(path.resolve(), notebook)
            text = dumps(normal(notebook))
        except NotebookError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        changed = path.read_text(encoding="utf-8") != text
        if changed:
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path.name}: {'stored' if changed else 'unchanged'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
