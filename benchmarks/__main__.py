"""Measure everything, print the table, store it in _build/bench.json, and with --readme in README.md too.

A missed goal is printed, and never an error: how fast a machine is today is not for a check to decide.
"""

import argparse
import json
import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version

import torch

from . import layers, loop, methods, pages, training
from .pairs import Row

PARTS = {"layers": layers.rows, "methods": methods.rows, "training": training.rows, "loop": loop.rows, "pages": pages.rows}
TARGET = pages.BUILD / "bench.json"
README = pages.ROOT / "README.md"
MARKERS = ("<!-- bench -->", "<!-- /bench -->")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--readme", action="store_true", help="replace the table between the markers in README.md")
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rows, skipped = [], {}
    for part in parts:
        print(f"measuring {part} …", flush=True)
        try:
            rows += PARTS[part]()
        except LookupError as reason:
            skipped[part] = str(reason)
    print(_table(rows))
    for part, reason in skipped.items():
        print(f"skipped: {part} ({reason})")
    if load is not None and load > 0.5 * os.cpu_count():
        print(f"other work was running (load {load:.1f} before the start): do not rely on these numbers")
    result = _store(rows, skipped, load)
    print(f"written to {TARGET}")
    if options.readme:
        _into_readme(rows, result)


def _table(rows: list[Row]) -> str:
    width = max((len(row.what) for row in rows), default=4)
    lines = [f"{'what':{width}}  {'measured':>16}  {'5 % to 95 %':>13}  {'goal':>8}  met"]
    for row in rows:
        spread = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        goal = "" if row.goal is None else f"≤ {row.goal:.4g}"
        met = {True: "yes", False: "NO", None: ""}[row.met]
        measured = f"{row.measured:.3g} {row.unit}"
        lines.append(f"{row.what:{width}}  {measured:>16}  {spread:>13}  {goal:>8}  {met}".rstrip())
    return "\n".join(lines)


def _store(rows: list[Row], skipped: dict[str, str], load: float | None) -> dict:
    """Write the file whole or not at all."""
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": load,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "normlib": version("normlib"),
        "rows": [asdict(row) | {"met": row.met} for row in rows],
        "skipped": skipped,
    }
    TARGET.parent.mkdir(exist_ok=True)
    part = TARGET.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(TARGET)
    return result


def _into_readme(rows: list[Row], result: dict) -> None:
    """The same table in Markdown, with where and when it was measured."""
    lines = ["| What | Measured | 5 % to 95 % | Goal |", "|---|---|---|---|"]
    for row in rows:
        spread = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        goal = "" if row.goal is None else f"≤ {row.goal:.4g}{'' if row.met else ', **missed**'}"
        lines.append(f"| {row.what} | {row.measured:.3g} {row.unit} | {spread} | {goal} |")
    where = f"{result['device']}, {result['cpus']} cores, torch {result['torch']}, {result['date'][:10]}"
    lines += ["", f"Measured by `make bench` in one run ({where}, load {result['load_before']:.1f} before the start)."]
    before, marked, after = README.read_text(encoding="utf-8").partition(MARKERS[0])
    _, end, after = after.partition(MARKERS[1])
    if not (marked and end):
        raise ValueError(f"{README} must hold the markers {MARKERS[0]} and {MARKERS[1]}")
    README.write_text("\n".join([before + marked, *lines, end + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
