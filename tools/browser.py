"""The Chromium of this machine, for what prints, tests or measures the built book."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Its path.

    Raises:
        FileNotFoundError: none is on the PATH.
    """
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(f"no browser: none of {', '.join(NAMES)} is on the PATH; install one")
