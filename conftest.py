"""For `pytest --nbval`: which outputs of a notebook are compared, and from where chapters import."""

import os

from tools.notebooks import ENVIRONMENT

os.environ.update(ENVIRONMENT)  # the notebooks' kernels start from here

RENDERED = ("text/html", "text/markdown", "image/svg+xml")  # image/png and widgets' views nbval skips by itself


def pytest_collectstart(collector):
    """Compares text and leaves pictures alone: chapters store only text (tools/notebooks.py)."""
    if getattr(collector, "skip_compare", None):
        collector.skip_compare += RENDERED


def pytest_terminal_summary(terminalreporter):
    """Says how to read and mend a failure of a notebook's cell."""
    if any(".ipynb::" in report.nodeid for report in terminalreporter.getreports("failed")):
        terminalreporter.write_line(
            "Notebooks: nbval counts code cells from 0. Where the new output is right, store it with `make notebooks`."
        )
