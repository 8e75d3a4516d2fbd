"""Measure everything, print the table, store it in _build/bench.json, and with --readme in README.md and data too.

A missed goal is printed, and never an error: how fast a machine is today is not for a check to decide.
"""

import argparse
import json
import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from . import chapters, layers, loop, methods, pages, steps, training
from .pairs import Row, Skipped

PARTS = {
    "layers": layers.rows,
    "methods": methods.rows,
    "steps": steps.rows,
    "training": training.rows,
    "loop": loop.rows,
    "chapters": chapters.rows,
    "pages": pages.rows,
}
TARGET = pages.BUILD / "bench.json"
README = pages.ROOT / "README.md"
TRACKED = pages.ROOT / "data" / "stored" / "bench.json"  # what README's table shows; chapter 08 reads it
MARKERS = ("<!-- bench -->", "<!-- /bench -->")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--readme", action="store_true", help="replace README.md's table and data/stored/bench.json")
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
        except Skipped as reason:
            skipped[part] = str(reason)
        result = _store(rows, skipped, load, keep=part != parts[-1] or bool(options.parts))  # an error loses one part
    print(_table(rows))
    for part, reason in skipped.items():
        print(f"skipped: {part} ({reason})")
    if load is not None and load > 0.5 * os.cpu_count():
        print(f"other work was running (load {load:.1f} before the start): do not rely on these numbers")
    print(f"written to {TARGET}")
    if options.readme:
        README.write_text(_with_table(README.read_text(encoding="utf-8"), result), encoding="utf-8")
        _write(TRACKED, result)


def _table(rows: list[Row]) -> str:
    width = max((len(row.what) for row in rows), default=4)
    lines = [f"{'what':{width}}  {'measured':>16}  {'range':>13}  {'goal':>8}  met"]
    for row in rows:
        spread = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        goal = "" if row.goal is None else f"≤ {row.goal:.4g}"
        met = {True: "yes", False: "NO", None: ""}[row.met]
        measured = f"{_rounded(row.measured, row.goal)} {row.unit}"
        lines.append(f"{row.what:{width}}  {measured:>16}  {spread:>13}  {goal:>8}  {met}".rstrip())
    return "\n".join(lines)


def _rounded(measured: float, goal: float | None) -> str:
    """Three digits, or as many as it takes to see whether the goal is met."""
    digits = 3
    while goal is not None and (float(f"{measured:.{digits}g}") <= goal) != (measured <= goal):
        digits += 1
    return f"{float(f'{measured:.{digits}g}'):g}"


def _merged(old: list[dict], new: list[dict]) -> list[dict]:
    """Rows by what they measure: new ones in the place of old ones, others after them."""
    rows = {row["what"]: row for row in old} | {row["what"]: row for row in new}
    return list(rows.values())


def _store(rows: list[Row], skipped: dict[str, str], load: float | None, keep: bool) -> dict:
    """Write the file; keep: rows that only an earlier run measured stay, with its date."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    new = [asdict(row) | {"met": row.met, "date": date} for row in rows]
    source = TARGET if TARGET.exists() else TRACKED  # a fresh clone has the second
    old = json.loads(source.read_text(encoding="utf-8")) if keep and source.exists() else {"rows": []}
    result = {
        "date": date,
        "device": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": load,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "normlib": version("normlib"),
        "rows": _merged([{"date": old.get("date")} | row for row in old["rows"]], new),
        "skipped": skipped,
    }
    _write(TARGET, result)
    return result


def _write(path: Path, result: dict) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _with_table(text: str, result: dict) -> str:
    """The README's text with the same table in Markdown, and where and when it was measured."""
    lines = ["| What | Measured | Range | Goal |", "|---|---|---|---|"]
    for row in result["rows"]:
        spread = "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        goal = "" if row["goal"] is None else f"≤ {row['goal']:.4g}{'' if row['met'] else ', **missed**'}"
        measured = f"{_rounded(row['measured'], row['goal'])} {row['unit']}"
        lines.append(f"| {row['what']} | {measured} | {spread} | {goal} |")
    where = f"{result['device']}, {result['cpus']} cores, torch {result['torch']}, {result['date'][:10]}"
    load = "unknown" if result["load_before"] is None else f"{result['load_before']:.1f}"
    lines += ["", f"Measured by `make bench` ({where}, load {load} before the start)."]
    if earlier := [row["date"] for row in result["rows"] if row["date"] != result["date"]]:
        lines[-1] += f" {len(earlier)} rows are of earlier runs, the first on {min(earlier)[:10]}."
    lines[-1] += " The range is that of the middle 90 % of the blocks, or of all where there are fewer than 20."
    before, marked, after = text.partition(MARKERS[0])
    _, end, after = after.partition(MARKERS[1])
    if not (marked and end):
        raise ValueError(f"{README} must hold the markers {MARKERS[0]} and {MARKERS[1]}")
    return "\n".join([before + marked, *lines, end + after])


if __name__ == "__main__":
    main()
