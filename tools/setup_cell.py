# @title Run this first: makes `normlib` importable
# Replaces nothing that is installed. On Colab it clones the book's repository, once; that takes seconds.
import importlib.util
import os
import shutil
import subprocess
import sys

# What has no origin is a mere folder of that name.
if (spec := importlib.util.find_spec("normlib")) is None or spec.origin is None:
    source = os.environ.get("NORMLIB_REPOSITORY", "ADDRESS")
    package = os.path.join("normlib", "layers")
    folder = os.path.abspath("..")  # where this notebook lies in a clone
    if not os.path.exists(os.path.join(folder, package)):
        folder = os.path.abspath("NAME-clone")  # a name that cannot be imported
    if not os.path.exists(os.path.join(folder, package)):
        if os.path.exists(folder):
            raise FileExistsError(f"{folder} is no clone of the book: rename it, then run this cell again")
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
    sys.modules.pop("normlib", None)  # that folder, imported
    sys.path.insert(0, folder)
    importlib.invalidate_caches()

import normlib

print("normlib is at", os.path.dirname(normlib.__file__))
