"""The built book: what its readers wait for."""

from pathlib import Path

from . import readers
from .pairs import Row, Skipped

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
FRAME = 16.0  # ms


def rows() -> list[Row]:
    """Raises Skipped where there is no book."""
    if not (BUILD / "html" / "index.html").exists():
        raise Skipped("no built book: run `make book` first")
    out = []
    for page in readers.measure():
        if page.p95 is not None and page.profile == "desktop":
            out.append(Row(f"slider move, 95th percentile, {Path(page.page).stem}", page.p95, FRAME, "ms"))
    return out
