"""Drops the notebooks' cached results when what stands under them has changed.

Jupyter's cache looks at a notebook's own cells only; a change of the package that they import, of the records they
read, or of the installed versions would go unnoticed.
"""

import hashlib
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNDER = ("normlib/**/*.py", "data/runs/**/*.json", "requirements.txt")


def fingerprint(root: Path = ROOT) -> str:
    """A digest of Python's version and of the name and content of every file under the notebooks."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted({path for pattern in UNDER for path in root.glob(pattern)}):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def main() -> None:
    build = ROOT / "_build"
    stamp = build / "fingerprint"
    now = fingerprint()
    if not stamp.exists() or stamp.read_text() != now:
        shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
        build.mkdir(exist_ok=True)
        stamp.write_text(now)
    # Pages are made anew each time, which takes seconds: none of a chapter that was renamed stays behind.
    for leftover in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(build / leftover, ignore_errors=True)


if __name__ == "__main__":
    main()
