"""Runs pytest in one folder after the other, each time in a fork of one process that has imported torch.

Importing it takes longer than most of these runs. A line of stdin is a job, {"folder": …, "arguments": […]}; the line
of stdout that answers it maps the ids of the tests that ran to None, or to the message of their failure.
"""

import json
import os
import sys
import tempfile
from importlib import import_module

import pytest

# What most of the tests import, none of it the repository's own.
COMMON = ("torch", "torchvision", "pandas", "scipy.stats", "sklearn.datasets", "matplotlib.figure", "nbformat")


class Results:
    """A pytest plugin that keeps how each test ended."""

    def __init__(self):
        self.found: dict[str, str | None] = {}

    def pytest_runtest_logreport(self, report):
        if report.failed or (report.passed and report.when == "call"):
            self.found[report.nodeid] = report.longreprtext if report.failed else None

    def pytest_collectreport(self, report):
        if report.failed:
            self.found[report.nodeid] = report.longreprtext


def run(folder: str, arguments: list[str]) -> dict[str, str | None]:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        child = os.fork()
        if child == 0:
            try:
                os.dup2(2, 1)  # stdout is for answers
                os.chdir(folder)
                sys.path.insert(0, folder)
                results = Results()
                os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and loading them takes a second
                status = pytest.main(["-p", "no:cacheprovider", *arguments], plugins=[results])
                if status != pytest.ExitCode.OK and not results.found:  # no test failed, so what did?
                    results.found["pytest"] = f"ended with {status!r}"
                json.dump(results.found, answer)
                answer.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        answer.seek(0)
        return json.loads(answer.read() or '{"pytest": "ended without a result"}')


for name in COMMON:
    import_module(name)
for line in sys.stdin:
    job = json.loads(line)
    print(json.dumps(run(job["folder"], job["arguments"])), flush=True)
