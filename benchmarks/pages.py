"""The built book: how long a slider move takes, and how long each chapter took to run."""

import pickle
import shutil
import sys
from pathlib import Path

from .pairs import Row, Skipped

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
ENVIRONMENT = BUILD / ".doctrees" / "environment.pickle"
FRAME = 16.0  # ms
CHAPTER, BOOK = 40.0, 300.0  # s
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def rows() -> list[Row]:
    """Raises Skipped where there is no book or nothing in it to measure."""
    if not ((BUILD / "html" / "index.html").exists() and ENVIRONMENT.exists()):
        raise Skipped("no built book: run `make book` first")
    return [*_times(), *_latencies()]


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


def _latencies():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise Skipped(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from latency import measure_slider_latency

    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        for file in sorted((BUILD / "html").glob("chapters/*.html")):
            if "nl-explorer" not in file.read_text(encoding="utf-8"):
                continue
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(file.as_uri())
            page.wait_for_selector(".nl-explorer.nl-on")
            latency = measure_slider_latency(page)
            yield Row(f"slider move, 95th percentile, {file.stem}", latency["p95"], FRAME, "ms")
            page.close()
        browser.close()
