"""What the records of a grid say: means with intervals, and paired differences over shared seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..intervals import half_width
from . import records
from .grids import Grid


@dataclass(frozen=True)
class Summary:
    """The records of one profile of a grid.

    table: a pandas.DataFrame, a row per combination of the grid's axes in the grid's order. Columns: the axes; n, the
    runs that did not diverge; diverged, those that did; mean, the mean final test accuracy over n, and half, the
    half-width of its 95 % Student interval (NaN below two runs); pairs, the seeds shared with the first method at the
    same labels of the other axes; difference, the mean of this method minus the first over those, and
    difference_half. A method without statistics over the batch, run once for all virtual batch sizes, has a row for
    each m; where the grid runs it at an m of its own (the batch size varies too), that row holds those runs alone.
    runs: the runs themselves, with the axes' labels, seed, final, diverged_at and the curves.
    missing: combinations without any record. others: records of configurations the grid does not have any more.
    """

    grid: Grid
    profile: str
    axes: list[str]
    table: "pandas.DataFrame"  # noqa: F821
    runs: "pandas.DataFrame"  # noqa: F821
    missing: int
    others: int


def interval(values) -> tuple[float, float]:
    """Mean and half-width of its 95 % Student interval; NaN where there are too few values."""
    n = len(values)
    return float(np.mean(values)) if n else float("nan"), float(half_width(values)) if n > 1 else float("nan")


def highest(means: "Mapping[str, float] | pandas.Series") -> str:  # noqa: F821
    """The key of the highest mean accuracy (a share); of equals the first.

    Means are compared to five decimals: what differs by less is no count of images, only how records were rounded.
    """
    rounded = {key: round(float(mean), 5) for key, mean in means.items()}
    return max(rounded, key=rounded.get)


def summarize(grid: Grid, profile: str, runs: Path = records.RUNS) -> Summary:
    """Read and compare the records of a grid.

    Raises:
        FileNotFoundError: there is none.
        RecordError: a record is damaged or stale; `normlib run` makes it anew.
    """
    import pandas

    everything = {record["id"]: record for record in records.stored(grid.name, profile, runs)}
    configs = grid.configs(profile, max(record["config"]["seed"] for record in everything.values()) + 1)
    held = {name: c for c in configs if (name := records.config_id(c)) in everything}
    axes = [axis for axis in (grid.axes | grid.profiles[profile].get("axes", {})) if axis in configs[0]]
    sizes = list(dict.fromkeys(c["m"] for c in configs if c.get("m", "any") != "any")) or ["any"]
    others = [axis for axis in axes if axis != "m"]
    own = {(*(c[axis] for axis in others), c["m"]) for c in configs if "m" in c}  # a method's runs at this very m
    rows = []
    for name, config in held.items():
        record = everything[name]
        row = {axis: config[axis] for axis in axes} | {"seed": config["seed"]} | record["curves"]
        row |= {"final": record["final"], "diverged": record["diverged_at"] is not None}
        free = [m for m in sizes if (*(config[axis] for axis in others), m) not in own or m == "any"]
        rows += [row | {"m": m} for m in free] if config.get("m") == "any" else [row]
    if not rows:
        raise FileNotFoundError(
            f"no record of grid {grid.name!r}, profile {profile!r}, as it is now, under {runs}; make them with: "
            f"normlib run {grid.name} --profile {profile}"
        )
    frame = pandas.DataFrame(rows)
    labels = {axis: list(dict.fromkeys(c[axis] for c in configs)) for axis in axes}
    labels |= {"m": sizes} if "m" in axes else {}
    for axis in axes:
        frame[axis] = pandas.Categorical(frame[axis], labels[axis], ordered=True)
    frame = frame.sort_values([*axes, "seed"], ignore_index=True)
    finals = {key: part.set_index("seed")["final"].dropna() for key, part in frame.groupby(axes, observed=True)}
    table = []
    for key, part in frame.groupby(axes, observed=True):
        mean, half = interval(finals[key])
        row = dict(zip(axes, key, strict=True)) | {"n": len(finals[key]), "diverged": int(part["diverged"].sum())}
        row |= {"mean": mean, "half": half} | _paired(dict(zip(axes, key, strict=True)), finals, labels)
        table.append(row)
    combinations = {tuple(c[axis] for axis in axes) for c in configs}
    return Summary(
        grid,
        profile,
        axes,
        pandas.DataFrame(table),
        frame,
        missing=len(combinations - {tuple(c[axis] for axis in axes) for c in held.values()}),
        others=len(everything) - len(held),
    )


def _paired(key: dict, finals: dict, labels: dict) -> dict:
    """This method against the first, seed by seed."""
    nothing = {"pairs": 0, "difference": float("nan"), "difference_half": float("nan")}
    if "method" not in key or key["method"] == labels["method"][0]:
        return nothing
    first = finals.get(tuple((key | {"method": labels["method"][0]}).values()))
    if first is None:
        return nothing
    differences = (finals[tuple(key.values())] - first).dropna()
    mean, half = interval(differences)
    return {"pairs": len(differences), "difference": mean, "difference_half": half}


def text(summary: Summary) -> str:
    """The summary as a table for a terminal."""
    first = next(iter(summary.runs["method"].cat.categories)) if "method" in summary.axes else None
    head = [*summary.axes, "n", "final accuracy", *([f"minus {first}", "pairs"] if first else []), "diverged"]
    lines = [head]
    for row in summary.table.to_dict("records"):
        cells = [str(row[axis]) for axis in summary.axes] + [str(row["n"]), _pair(row["mean"], row["half"], "")]
        cells += [_pair(row["difference"], row["difference_half"], "+"), str(row["pairs"] or "")] if first else []
        lines.append([*cells, f"{row['diverged']} of {row['n'] + row['diverged']}" if row["diverged"] else ""])
    return columns(lines)


def columns(lines: list[list[str]]) -> str:
    """Lines of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _pair(mean: float, half: float, sign: str) -> str:
    if mean != mean:
        return ""
    return f"{mean:{sign}.4f}" + (f" ± {half:.4f}" if half == half else "")
