"""Runs the chapters into the cache that the book is built from, as many at a time as there are processors.

Jupyter Book alone would run them one after the other. Jupyter's cache looks at a notebook's own cells only; a change of
the package that they import, of the records they read, or of the installed versions would go unnoticed, so that is
looked at here. `pytest --nbval` runs the same cells; what passes there is kept here too (conftest.py).
"""

import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

from tools import notebooks, toc

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
STAMP = BUILD / "fingerprint"  # of what the cache was begun under
# What a kernel says of itself, by which cells are colored; nbval does not ask.
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3", "file_extension": ".py", "mimetype": "text/x-python"}
UNDER = ("normlib/**/*.py", "data/runs/**/*.json", "data/stored/*", "requirements.txt")
# By which torch's kernels are kept to an older processor's instructions (`make test-processor`), which round otherwise.
INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def fingerprint(root: Path = ROOT) -> str:
    """A digest of Python's version, the instructions used, and every file under the notebooks, by name and content."""
    digest = hashlib.sha256("\0".join([sys.version, *(os.environ.get(k, "") for k in INSTRUCTIONS)]).encode())
    for path in sorted({path for pattern in UNDER for path in root.glob(pattern)}):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks of the table of contents."""
    return [path for name, _ in toc.pages(root) if (path := root / f"{name}.ipynb").exists()]


def stamp() -> str | None:
    """The fingerprint under which the cache was begun."""
    return STAMP.read_text() if STAMP.exists() else None


def fresh() -> None:
    """Empty the cache where what lies under the notebooks has changed since it was begun."""
    now = fingerprint()
    if stamp() != now:
        shutil.rmtree(CACHE, ignore_errors=True)
        BUILD.mkdir(exist_ok=True)
        STAMP.write_text(now)
    get_cache(str(CACHE)).list_cache_records()  # makes the database, before two processes try at once


def keep(notebook, path: Path, seconds: float, folder: Path = CACHE) -> None:
    """Put the executed notebook of the file `path` into the cache in `folder`, unless the cache holds its cells."""
    cache = get_cache(str(folder))
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        notebook.metadata["language_info"] = LANGUAGE
        bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
        cache.cache_notebook_bundle(bundle, check_validity=False)


def execute(paths: list[Path], folder: Path, timeout: int) -> None:
    """Run what the cache in `folder` does not hold; the first error ends the process.

    Raises:
        NotebookError: a file is no notebook.
    """
    cache = get_cache(str(folder))
    waiting = {}
    for path in paths:
        notebook = notebooks.read(path)
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            waiting[path] = notebook
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the threads only wait for kernels
        runs = {
            pool.submit(single_nb_execution, notebook, str(path.parent), timeout, False): path
            for path, notebook in waiting.items()
        }
        for run in as_completed(runs):
            path, result = runs[run], run.result()
            if result.err:
                pool.shutdown(wait=False, cancel_futures=True)
                sys.exit(f"{path.relative_to(ROOT)}: {result.err}")
            keep(result.nb, path, result.time, folder)
            print(f"{path.relative_to(ROOT)}: {result.time:.0f} s", flush=True)


def main() -> None:
    fresh()
    # Pages are made anew each time, which takes seconds: none of a chapter that was renamed stays behind.
    for leftover in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(BUILD / leftover, ignore_errors=True)
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["execute"]
    try:
        execute(chapters(), CACHE, settings["timeout"])
    except notebooks.NotebookError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
