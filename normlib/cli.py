"""The command `normlib`: list the grids, run one."""

import argparse
import sys

from . import experiments


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="normlib", description="Recorded experiments of the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the grids and their profiles")
    run = commands.add_parser("run", help="make the missing records of a grid")
    run.add_argument("grid", help="a name that `normlib list` prints")
    run.add_argument("--profile", default="short", help="default: short")
    run.add_argument("--seeds", type=int, default=5, help="runs per combination (default: 5)")
    run.add_argument("--workers", type=int, default=1, help="processes at a time (default: 1)")
    options = parser.parse_args(argv)
    if options.command == "list":
        for grid in experiments.GRIDS.values():
            print(f"{grid.name:16} {', '.join(grid.profiles):12} {grid.question}")
        return 0
    try:
        made = experiments.run(options.grid, profile=options.profile, seeds=options.seeds, workers=options.workers)
    except (ValueError, OSError) as error:
        print(f"normlib: {error}", file=sys.stderr)
        return 2
    print(f"{made} run(s) recorded under {experiments.RUNS / options.grid}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
