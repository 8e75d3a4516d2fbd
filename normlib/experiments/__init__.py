"""Named grids of training runs: run them, keep each result as one file, load them for a chapter.

from normlib import experiments

experiments.run("lenet-mnist", profile="full", workers=2)   # skips what is recorded
table = experiments.load("lenet-mnist", profile="full")     # a pandas.DataFrame, a row per run
"""

from .grids import GRIDS, Grid
from .jobs import RunWarning, WorkerError, run
from .records import RUNS, RecordError, load, read, validate
from .report import Summary, highest, summarize
from .runner import execute

__all__ = [
    "GRIDS",
    "RUNS",
    "Grid",
    "RecordError",
    "RunWarning",
    "Summary",
    "WorkerError",
    "execute",
    "highest",
    "load",
    "read",
    "run",
    "summarize",
    "validate",
]
