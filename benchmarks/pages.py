"""The built book: how long each chapter took to run, and what its readers wait for."""

import pickle
from pathlib import Path

from . import readers
from .pairs import Row, Skipped

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
ENVIRONMENT = BUILD / ".doctrees" / "environment.pickle"
FRAME = 16.0  # ms
CHAPTER, BOOK = 40.0, 300.0  # s


def rows() -> list[Row]:
    """Raises Skipped where there is no book or nothing in it to measure."""
    if not ((BUILD / "html" / "index.html").exists() and ENVIRONMENT.exists()):
        raise Skipped("no built book: run `make book` first")
    return [*_times(), *_readers()]


def _times():
    from myst_nb.sphinx_ import NbMetadataCollector

    environment = pickle.loads(ENVIRONMENT.read_bytes())
    total = 0.0
    for name in sorted(environment.all_docs):
        data = NbMetadataCollector.get_exec_data(environment, name)
        if data and data["runtime"] is not None:
            total += data["runtime"]
            yield Row(f"running time of {name}", data["runtime"], CHAPTER, "s")
    yield Row("running time of all chapters", total, BOOK, "s")


def _readers():
    for page in readers.measure():
        if page.p95 is not None and page.profile == "desktop":
            yield Row(f"slider move, 95th percentile, {Path(page.page).stem}", page.p95, FRAME, "ms")
