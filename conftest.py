"""For `pytest --nbval`: what of a notebook is compared, from where chapters import, what becomes of a run.

A notebook all of whose cells pass goes into the cache that the book is built from: `make test` runs each chapter once.
Of outputs nbval keeps what is printed and displayed, not a later update or removal, which no chapter uses.
"""

import copy
import os
from time import perf_counter

import pytest
from nbval.plugin import IPyNbCell

from tools.notebooks import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # the notebooks' kernels start from here

RENDERED = ("text/html", "text/markdown", "image/svg+xml")  # image/png and widgets' views nbval skips by itself
PASSED = pytest.StashKey[list]()
START = pytest.StashKey[tuple[float, str | None]]()


def pytest_configure(config):
    """Drops what an earlier state of the package left in the cache, once, before there are workers."""
    if getattr(config.option, "nbval", False) and not hasattr(config, "workerinput"):
        from tools import execute

        execute.fresh()


def pytest_collectstart(collector):
    """Compares text and leaves pictures alone: chapters store only text (tools/notebooks.py)."""
    if getattr(collector, "skip_compare", None):
        collector.skip_compare += RENDERED


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """The clock of a notebook starts with its kernel."""
    if isinstance(item, IPyNbCell) and START not in item.parent.stash:
        from tools import execute

        item.parent.stash[START] = perf_counter(), execute.stamp()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Keeps a notebook when the last of its cells has passed."""
    result = yield
    if isinstance(item, IPyNbCell):
        stash = item.parent.stash
        stash.setdefault(PASSED, []).append(item)
        notebook = copy.deepcopy(item.parent.nb)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        if len(stash[PASSED]) == len(cells):
            from tools import execute

            for number, (cell, passed) in enumerate(zip(cells, stash[PASSED], strict=True), start=1):
                cell.outputs, cell.execution_count = passed.test_outputs, number
            start, stamp = stash[START]
            if stamp == execute.stamp():  # what lies under the notebooks was not changed meanwhile
                execute.keep(notebook, item.path, perf_counter() - start)
    return result


def pytest_terminal_summary(terminalreporter):
    """Says how to read and mend a failure of a notebook's cell."""
    if any(".ipynb::" in report.nodeid for report in terminalreporter.getreports("failed")):
        terminalreporter.write_line(
            "Notebooks: nbval counts code cells from 0. Where the new output is right, store it with `make notebooks`."
        )
