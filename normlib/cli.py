"""The command `normlib`: list the grids, run one, report what its records say."""

import argparse
import html
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import experiments
from .experiments import costs, jobs, report, torchrun


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 2 after an error, 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", experiments.RunWarning)
        warnings.showwarning = _say
        try:
            options.command(options)
        except (ValueError, OSError, ImportError, experiments.WorkerError) as error:
            _say("; ".join([str(error), *getattr(error, "__notes__", ())]))
            return 2
        except KeyboardInterrupt:
            _say("interrupted; the same command goes on from the last finished epoch")
            return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="normlib", description="Recorded experiments of the book.")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("list", help="the grids and their profiles").set_defaults(command=_list)
    run = commands.add_parser("run", help="make the missing records of a grid")
    run.set_defaults(command=_run)
    run.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="runs per combination (default: 5); of those trained together, whole blocks",
    )
    run.add_argument("--workers", type=int, default=1, help="processes at a time (default: 1)")
    run.add_argument("--only", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="some of the runs")
    run.add_argument("--dry-run", action="store_true", help="show what is recorded and missing, and what it costs")
    run.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask cluster, to run there")
    table = commands.add_parser("report", help="the table and the figure of a grid, from its records")
    table.set_defaults(command=_report)
    table.add_argument("--figure", type=Path, metavar="FILE", help="draw the seed's figure there: .png or .html")
    for command in (run, table):
        command.add_argument("grid", help="a name that `normlib list` prints")
        command.add_argument("--profile", default="short", help="default: short")
        command.add_argument(
            "--runs", type=Path, default=experiments.RUNS, metavar="FOLDER", help="of the records (default: the book's)"
        )
    return parser


def _say(message, *_) -> None:
    """One line to standard error, around any progress bars."""
    tqdm.write(f"normlib: {message}", file=sys.stderr)


def _list(options) -> None:
    for grid in experiments.GRIDS.values():
        print(f"{grid.name:18} {', '.join(grid.profiles):18} {grid.question}")


def _run(options) -> None:
    if options.dry_run:
        return _plan(options)
    made = experiments.run(
        options.grid,
        profile=options.profile,
        seeds=options.seeds,
        workers=options.workers,
        only=options.only,
        scheduler=options.scheduler,
        runs=options.runs,
    )
    if torchrun.launched() and os.environ["RANK"] != "0":  # the first of its processes speaks
        return
    print(f"{made} run(s) recorded under {options.runs / options.grid}")
    with suppress(FileNotFoundError):  # where another process makes them all, there may be none yet
        _print(experiments.summarize(experiments.GRIDS[options.grid], options.profile, options.runs))


def _plan(options) -> None:
    """Print a line for each combination, and what the missing runs cost."""
    if options.workers < 1:
        raise ValueError(f"workers must be at least 1, got {options.workers}")
    grid, configs = jobs.select(options.grid, options.profile, options.seeds, options.only)
    folder = options.runs / grid.name
    axes = [axis for axis in grid.axes | grid.profiles[options.profile].get("axes", {}) if axis in configs[0]]
    missing = jobs.missing(configs, folder)
    trainings = jobs.trainings(missing)
    seconds = costs.recorded(grid.name, missing, options.runs)
    rows = {}
    for config in configs:
        rows.setdefault(tuple(config[axis] for axis in axes), []).append(config)
    lines = [[*axes, "recorded", "missing", "time each"]]
    for labels, group in rows.items():
        each = next((s for c, s in zip(missing, seconds, strict=True) if c in group), None)
        absent = sum(c in missing for c in group)
        lines.append([*labels, str(len(group) - absent), str(absent), _duration(each) if each else ""])
    print(report.columns(lines))
    print(f"{len(configs)} runs, {len(configs) - len(missing)} recorded, {len(missing)} missing")
    if not missing:
        return
    source = "from records alike"
    if None in seconds:  # of all or of none: any record of the profile is alike
        first = costs.measured(grid.name, trainings[0])
        source = "from an epoch of the first run"
        if first is None:
            print(f"cost: unknown; two epochs of the first run take longer than {costs.PATIENCE} s")
            return
        seconds = [first] * len(trainings)
    else:
        seconds = costs.recorded(grid.name, trainings, options.runs)
    # seeds trained together are trained all, if only one is missing
    total = sum(each * c.get("together", 1) for each, c in zip(seconds, trainings, strict=True))
    print(f"cost: about {_duration(total / options.workers)} with {options.workers} worker(s), {source}")


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _report(options) -> None:
    grid = experiments.GRIDS[jobs.choice("grid", options.grid, experiments.GRIDS)]
    jobs.choice("profile", options.profile, grid.profiles)
    suffix = options.figure and options.figure.suffix
    if suffix not in (None, ".png", ".html"):
        raise ValueError(f"figure must end in .png or .html, got {str(options.figure)!r}")
    summary = experiments.summarize(grid, options.profile, options.runs)
    _print(summary)
    if options.figure:
        picture = draw(summary)
        if suffix == ".png":
            options.figure.write_bytes(picture.png)
        else:
            page = f"<!doctype html><meta charset=utf-8><title>{html.escape(grid.name)}</title>{picture.html}"
            options.figure.write_text(page, encoding="utf-8")
        print(f"drawn: {options.figure}")


def _print(summary: experiments.Summary) -> None:
    print(f"{summary.grid.name}, profile {summary.profile}. {summary.grid.question}")
    print(report.text(summary))
    print("final accuracy: on the test set after the last epoch; mean ± 95 % interval over n runs")
    if summary.table["diverged"].any():
        print("diverged runs are in no mean and no difference")
    if summary.missing:
        print(f"no record yet of {summary.missing} combination(s)")
    if summary.others:
        print(f"left out: {summary.others} record(s) of configurations that the grid no longer has")


def draw(summary: experiments.Summary):
    """The figure of the seed, a `plots.Picture`: test accuracy over what `Grid.figure` says, a panel for the rest.

    Raises:
        ValueError: the grid does not say what its figure is.
    """
    from . import plots, style

    grid = summary.grid
    if grid.figure not in ("epochs", "batch size"):
        raise ValueError(f"grid {grid.name} has no figure (Grid.figure is {grid.figure!r}); its table is all")
    inside = {"method", "m"} if grid.figure == "batch size" else {"method"}
    outside = [axis for axis in summary.axes if axis not in inside]
    source = summary.table if grid.figure == "batch size" else summary.runs[~summary.runs["diverged"]]
    if source.empty:
        raise ValueError(f"every run of grid {grid.name} that is recorded diverged: there is nothing to draw")
    groups = list(source.groupby(outside, observed=True)) if outside else [((), source)]
    methods = list(summary.runs["method"].cat.categories)
    panels = plots.panels(len(groups))
    panels = panels if len(groups) > 1 else [panels]
    for ax, (key, part) in zip(panels, groups, strict=True):
        for method, rows in part.groupby("method", observed=True):
            if grid.figure == "batch size":
                x, points = [float(m) for m in rows["m"]], zip(rows["mean"], rows["half"], strict=True)
            else:
                x, points = (
                    range(1, len(rows["test_accuracy"].iloc[0]) + 1),
                    map(report.interval, zip(*rows["test_accuracy"], strict=True)),
                )
            mean, half = np.array(list(points)).T
            index = methods.index(method)
            look = plots.look(index)
            marker = style.MARKERS[index % len(style.MARKERS)] if grid.figure == "batch size" else None
            ax.plot(x, mean, label=method, marker=marker, **look)
            ax.fill_between(x, mean - half, mean + half, color=look["color"], alpha=0.2, linewidth=0)
        ax.set(xlabel="epoch", ylabel="test accuracy")
        if grid.figure == "batch size":
            ax.set_xscale("log", base=2)
            ax.set_xticks(x, [f"{m:g}" for m in x])
            ax.set(xlabel="m, samples of a statistic")
        ax.set_title(", ".join(f"{axis} {label}" for axis, label in zip(outside, key, strict=True)))
        ax.legend()
    seeds, diverged = summary.runs["seed"].nunique(), int(summary.table["diverged"].sum())
    return plots.show(
        *panels,
        alt=f"Test accuracy over {grid.figure}, {len(panels)} panel(s), a line for each of {', '.join(methods)}.",
        caption=f"{grid.name}, profile {summary.profile}: mean and 95 % interval over at most {seeds} seed(s)"
        + (f"; {diverged} diverged run(s) are left out." if diverged else "."),
    )


if __name__ == "__main__":
    sys.exit(main())
