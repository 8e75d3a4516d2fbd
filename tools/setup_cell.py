# @title Run this first: makes `normlib` importable
# Replaces nothing that is installed. On Colab it clones the book's repository, once; that takes seconds.
import importlib.util
import os
import shutil
import subprocess
import sys

if importlib.util.find_spec("normlib") is None:
    source = os.environ.get("NORMLIB_REPOSITORY", "ADDRESS")
    folder = os.path.abspath("..")  # where this notebook lies in a clone
    if not os.path.exists(os.path.join(folder, "normlib", "layers")):
        folder = os.path.abspath("NAME")
    if not os.path.exists(folder):
        if not source:
            raise ModuleNotFoundError(
                "normlib is not installed: run `pip install .` in the book's repository, then this cell again"
            )
        part = folder + ".part"
        shutil.rmtree(part, ignore_errors=True)
        command = ["git", "clone", "--quiet", "--depth=1", "--branch=BRANCH", source, part]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f"{source} could not be cloned; run this cell again when it can be reached\n{done.stderr}"
            )
        os.rename(part, folder)  # whole or not at all
    sys.path.insert(0, folder)
    importlib.invalidate_caches()

import normlib

print("normlib is at", os.path.dirname(normlib.__file__))
