"""Runs the published notebooks as a reader on Colab would, with Colab's versions, and moves every slider.

`make test-colab` calls it with the Python of `.venv-colab`. Each notebook runs from its first cell to its last in an
empty folder of its own, where `normlib` is not installed: the first cell clones a snapshot of this working tree. What
is checked:

- the versions are those of requirements-colab.txt, and the first cell replaces none of them;
- the first cell takes less than 60 s and may be run twice;
- no cell raises, and text that does not differ from run to run, printed or a result, is what the notebook has stored;
- where the notebook stores an interactive figure there is now a widget, and a control moved as the browser moves it
  (a message to the widget's model; then one to each of its buttons) changes what the widget shows.

Only the front end is missing: `google.colab` is an empty module, by whose presence normlib knows where it is.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from tools import notebooks
from tools.publish import OUT, ROOT, SETUP, repository

VIEW = "application/vnd.jupyter.widget-view+json"
SETUP_LIMIT = 60  # seconds
STARTUP = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"
VERSIONS = """
import importlib.metadata, json
found = {}
for package in importlib.metadata.distributions():
    found.setdefault(package.metadata["Name"].lower(), package.version)  # the first on the path is the one imported
print(json.dumps(found))
"""
WIDGETS = """
import json, ipywidgets
print(json.dumps({key: {
    "index": getattr(w, "index", None), "values": len(getattr(w, "_options_labels", ())),
    "children": [child.model_id for child in getattr(w, "children", ())],
    "button": isinstance(w, ipywidgets.Button),
    "shown": w.value if isinstance(w, ipywidgets.HTML) else None,
} for key, w in ipywidgets.Widget.widgets.items()}))
"""


class ColabError(Exception):
    """A notebook does not do on Colab what it promises; the message names it and the cell."""


def snapshot(folder: Path) -> str:
    """A repository whose published branch holds this working tree, changes and new files included; its address."""
    # One commit of its own: CI's checkout has no past, and from such a one git pushes into no empty repository.
    git = ["git", f"--git-dir={folder}", f"--work-tree={ROOT}", "-c", "user.name=snapshot", "-c", "user.email=@"]
    git += ["-c", f"core.hooksPath={os.devnull}", "-c", f"core.excludesFile={ROOT / '.git' / 'info' / 'exclude'}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook sets some
    for command in (
        ["init", "--quiet", f"--initial-branch={repository.PUBLISHED}"],
        ["add", "--all"],
        ["-c", "commit.gpgSign=false", "commit", "--quiet", "--message=snapshot"],
    ):
        done = subprocess.run(git + command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ColabError(f"no snapshot of {ROOT}: git {command[0]} failed\n{done.stderr}")
    return folder.as_uri()


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements-colab.txt").read_text(encoding="utf-8").split("\n")
    return dict(line.split("==") for line in lines if "==" in line)


class Session:
    """A kernel on a published notebook, used as a context."""

    def __init__(self, path: Path, folder: Path, environment: dict[str, str]):
        self.path, self.stored = path, notebooks.read(path)
        self.notebook = notebooks.read(path)
        resources = {"metadata": {"path": str(folder)}}
        self.client = NotebookClient(self.notebook, timeout=600, kernel_name="python3", resources=resources)
        self.environment = environment

    def __enter__(self):
        self._setup = self.client.setup_kernel(env=self.environment)
        self._setup.__enter__()
        return self

    def __exit__(self, *error):
        return self._setup.__exit__(*error)

    def fail(self, number: int, problem: str):
        where = notebooks.place(self.path, number + 1, self.notebook.cells[number])
        raise ColabError(f"{where}: {problem}")

    def run(self, number: int) -> float:
        """Runs a cell, counted from 0; the seconds it took."""
        began = perf_counter()
        try:
            self.client.execute_cell(self.notebook.cells[number], number)
        except (CellExecutionError, CellTimeoutError) as error:
            self.fail(number, f"failed\n{error}")
        return perf_counter() - began

    def ask(self, source: str) -> dict:
        """What a cell that prints JSON prints; it leaves no trace in the notebook."""
        cell = nbformat.v4.new_code_cell(source)
        self.notebook.cells.append(cell)
        self.run(len(self.notebook.cells) - 1)
        self.notebook.cells.pop()
        return json.loads(_printed(cell))

    def send(self, model: str, data: dict) -> None:
        """What a browser sends to a widget's model."""
        self.client.kc.shell_channel.send(self.client.kc.session.msg("comm_msg", {"comm_id": model, "data": data}))

    def press(self, buttons: list[str]) -> dict:
        """Clicks these; the state of all widgets after it."""
        for button in buttons:
            self.send(button, {"method": "custom", "content": {"event": "click"}})
        return self.ask(WIDGETS)

    def move(self, control: str, index: int) -> None:
        self.send(control, {"method": "update", "state": {"index": index}, "buffer_paths": []})


def _printed(cell) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def _text(cell) -> str:
    """What a cell prints, and the text of its result; a caption is an output of the published notebook alone."""
    results = [o.data.get("text/plain", "") for o in cell.outputs if o.output_type == "execute_result"]
    return "\n".join([_printed(cell), *results])


def check_text(session: Session) -> None:
    for number, (stored, now) in enumerate(zip(session.stored.cells, session.notebook.cells, strict=True)):
        tags = stored.metadata.get("tags", [])
        if stored.cell_type != "code" or {notebooks.VOLATILE, SETUP} & set(tags):
            continue
        if _text(stored) != _text(now):
            session.fail(number, f"gave\n{_text(now)}\nwhere the notebook stores\n{_text(stored)}")


def check_widgets(session: Session) -> int:
    """Moves every control of every figure; how many changed what is shown."""
    moved = 0
    state = session.ask(WIDGETS)
    for number, (stored, now) in enumerate(zip(session.stored.cells, session.notebook.cells, strict=True)):
        figures = sum("nl-interactive" in str(o.get("data", {}).get("text/html")) for o in stored.get("outputs", []))
        views = [o.data[VIEW]["model_id"] for o in now.get("outputs", []) if VIEW in o.get("data", {})]
        live = [parts for parts in (_parts(state, view) for view in views) if _controls(state, parts)]
        if len(live) != figures:
            session.fail(number, f"{len(live)} widgets where the notebook stores {figures} interactive figures")
        for parts in live:
            changed = 0
            buttons = [key for key in parts if state[key]["button"]]
            state = session.press(buttons)  # so that what they say of nothing chosen is not taken for a change
            for control in _controls(state, parts):
                index = state[control]["index"]  # None where nothing is chosen yet
                session.move(control, 0 if index is None else (index + 1) % state[control]["values"])
                after = session.press(buttons)
                changed += any(after[key]["shown"] != state[key]["shown"] for key in state)
                state = after
            if not changed:
                session.fail(number, "no control of its widget changes what it shows")
            moved += changed
    return moved


def _parts(state: dict, view: str) -> list[str]:
    """A widget and those in it, in their order; none of one that is closed, as a progress bar is."""
    if view not in state:
        return []
    return [view, *(key for child in state[view]["children"] for key in _parts(state, child))]


def _controls(state: dict, parts: list[str]) -> list[str]:
    return [key for key in parts if state[key]["values"] > 1]


def check(path: Path, folder: Path, environment: dict[str, str]) -> str:
    """Runs one notebook; a line on what was found.

    Raises:
        ColabError: it does not do what it should.
    """
    with Session(path, folder, environment) as session:
        before = session.ask(VERSIONS)
        wrong = {name: before.get(name) for name, pin in pins().items() if before.get(name) != pin}
        if wrong:
            raise ColabError(f"not Colab's versions: {wrong}; run `make test-colab`, which installs them")
        setup = session.run(0)
        if setup > SETUP_LIMIT:
            session.fail(0, f"took {setup:.0f} s; at most {SETUP_LIMIT} are allowed")
        session.run(0)
        if session.ask(VERSIONS) != before:
            session.fail(0, "changed what is installed")
        cells = enumerate(session.notebook.cells)
        total = sum(session.run(number) for number, cell in cells if cell.cell_type == "code" and number)
        check_text(session)
        moved = check_widgets(session)
    return f"{path.name}: first cell {setup:.1f} s, the others {total:.0f} s, {moved} controls move their figure"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run published notebooks with Colab's versions.")
    parser.add_argument("files", nargs="*", type=Path, help="default: all of _build/published/chapters")
    options = parser.parse_args(arguments)
    files = options.files or sorted(OUT.glob("*.ipynb"))
    if not files:
        sys.exit(f"no notebook in {OUT}; run `make book`")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        startup = folder / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "00-colab.py").write_text(STARTUP, encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "NORMLIB"))}
        environment |= {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # its warning has no cause that a notebook could remove
        try:
            environment["NORMLIB_REPOSITORY"] = snapshot(folder / "repository")
        except ColabError as error:
            sys.exit(str(error))
        environment["IPYTHONDIR"] = str(folder / "ipython")
        for number, path in enumerate(files):
            content = folder / "content" / str(number)
            content.mkdir(parents=True)
            try:
                print(check(path, content, environment), flush=True)
            except ColabError as error:
                print(error, file=sys.stderr, flush=True)
                failed += 1
    return failed and 1


if __name__ == "__main__":
    sys.exit(main())
