"""The command `normlib`: what it prints and how it exits."""

import dataclasses
import math
import re
import warnings
from datetime import datetime, timezone

import pytest

from normlib import experiments, plots
from normlib.cli import draw, main
from normlib.experiments import costs, records


def test_list_names_every_grid_profile_and_question(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(experiments.GRIDS)
    for line, grid in zip(lines, experiments.GRIDS.values(), strict=True):
        assert line.startswith(grid.name)
        assert ", ".join(grid.profiles) in line
        assert line.endswith(grid.question)


def test_run_passes_its_options_on_and_says_what_it_did(capsys, monkeypatch, tmp_path):
    asked = []

    def fake(grid, **options):
        asked.append((grid, options))
        return 3

    monkeypatch.setattr(experiments, "run", fake)
    assert main(["run", "lenet-mnist"]) == 0
    arguments = "--profile full --seeds 7 --workers 2 --only method=bn seed=1 --only m=2 --scheduler tcp://here:1"
    assert main(["run", "lenet-mnist", *arguments.split(), "--runs", str(tmp_path)]) == 0
    plain = {"profile": "short", "seeds": 5, "workers": 1, "only": [], "scheduler": None, "runs": experiments.RUNS}
    other = {"profile": "full", "seeds": 7, "workers": 2, "only": ["method=bn", "seed=1", "m=2"]}
    other |= {"scheduler": "tcp://here:1", "runs": tmp_path}
    assert asked == [("lenet-mnist", plain), ("lenet-mnist", other)]
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == f"3 run(s) recorded under {experiments.RUNS / 'lenet-mnist'}"
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "lenet"], "normlib: grid must be one of .*got 'lenet'"),
        (["run", "lenet-mnist", "--profile", "quick"], "normlib: profile must be one of short, full, got 'quick'"),
        (["run", "lenet-minst"], "did you mean 'lenet-mnist'"),
        (["run", "lenet-mnist", "--dry-run", "--workers", "0"], "normlib: workers must be at least 1, got 0"),
        (["run", "lenet-mnist", "--only", "method=xx"], "normlib: only method must be one of none, bn, .*got 'xx'"),
        (["report", "lenet"], "normlib: grid must be one of .*got 'lenet'"),
        (["report", "lenet-mnist", "--profile", "ful"], "normlib: profile must be .*; did you mean 'full'"),
        (["report", "lenet-mnist", "--figure", "a.pdf"], "normlib: figure must end in .png or .html, got 'a.pdf'"),
        (["run", "lenet-mnist", "--seeds", "0"], "normlib: seeds must be at least 1, got 0"),
        (["run", "lenet-mnist", "--workers", "0"], "normlib: workers must be at least 1, got 0"),
    ],
    ids=" ".join,
)
def test_refusals_are_one_line_and_status_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert re.search(message, line)


@pytest.mark.parametrize(
    "error",
    [
        OSError("disk full"),
        experiments.RecordError("x.json: stale"),
        experiments.WorkerError("workers died"),
        ImportError("no dask"),
    ],
)
def test_failures_are_reported_in_one_line(capsys, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(experiments, "run", fail)
    assert main(["run", "lenet-mnist"]) == 2
    assert capsys.readouterr().err == f"normlib: {error}\n"


def test_a_failure_names_its_run(capsys, monkeypatch):
    error = OSError("disk full")
    error.__notes__ = ["in run bn 0 (x.json)"]

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(experiments, "run", fail)
    assert main(["run", "lenet-mnist"]) == 2
    assert capsys.readouterr().err == "normlib: disk full; in run bn 0 (x.json)\n"


def test_run_ends_with_the_table(capsys, monkeypatch, toy):
    monkeypatch.setattr(experiments, "run", lambda *args, **options: 0)
    assert main(["run", *toy]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["report", *toy]) == 0
    assert lines[1:] == capsys.readouterr().out.splitlines()


def test_of_torchruns_processes_only_the_first_speaks(capsys, monkeypatch):
    monkeypatch.setattr(experiments, "run", lambda *args, **options: 2)
    monkeypatch.setenv("RANK", "1")  # of some other launcher
    assert main(["run", "lenet-mnist"]) == 0
    assert "2 run(s) recorded" in capsys.readouterr().out
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", "lenet-mnist"]) == 0
    assert capsys.readouterr().out == ""


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "run", interrupt)
    assert main(["run", "lenet-mnist"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_warnings_of_a_run_are_lines_of_the_command(capsys, monkeypatch):
    def warn(*args, **options):
        for _ in range(2):
            warnings.warn("x.json: stale", experiments.RunWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(experiments, "run", warn)
    assert main(["run", "lenet-mnist"]) == 0
    assert capsys.readouterr().err == "normlib: x.json: stale\n" * 2


GRID = experiments.Grid(
    name="toy",
    question="Which is better?",
    axes={
        "method": {"bn": {"norm": "bn"}, "ln": {"norm": "ln"}},
        "m": {"2": {"virtual_batch_size": 2}, "4": {"virtual_batch_size": 4}},
    },
    profiles={"short": {"epochs": 2, "batch_size": 4}},
    figure="batch size",
)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A grid with records of 4 of its 6 runs for seeds 0 and 1; the arguments that name them."""
    monkeypatch.setitem(experiments.GRIDS, "toy", GRID)
    finals = {("bn", "2", 0): 0.5, ("bn", "2", 1): 0.75, ("bn", "4", 0): None, ("ln", "any", 0): 0.5}
    for config in GRID.configs("short", 2):
        label = (config["method"], config["m"], config["seed"])
        if label in finals:
            final = finals[label]
            curves = dict.fromkeys(records.CURVES, [final] * 2) | {"epoch_seconds": [30.0, 30.0]}
            environment = records.environment("cpu", datetime.now(timezone.utc))
            whole = {"schema": records.SCHEMA, "results_version": records.RESULTS_VERSION, "grid": "toy"}
            whole |= {"id": records.config_id(config), "config": config, "curves": curves, "final": final}
            whole |= {"best": final, "per_class": [], "diverged_at": None if final else 0, "environment": environment}
            records.write(whole, tmp_path)
    return ["toy", "--runs", str(tmp_path)]


def test_dry_run_counts_and_estimates_and_runs_nothing(capsys, toy, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert main(["run", *toy, "--seeds", "2", "--workers", "2", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "method  m    recorded  missing  time each",
        "bn      2    2         0",
        "bn      4    1         1        60 s",
        "ln      any  1         1        60 s",
        "6 runs, 4 recorded, 2 missing",
        "cost: about 60 s with 2 worker(s), from records alike",
    ]
    assert main(["run", *toy, "--seeds", "2", "--only", "m=2", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs, 2 recorded, 0 missing"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (7300.0, "cost: about 2 h with 3 worker(s), from an epoch of the first run"),
        (None, "cost: unknown; two epochs of the first run take longer than 30 s"),
    ],
)
def test_without_records_an_epoch_is_measured(capsys, monkeypatch, toy, tmp_path, seconds, line):
    monkeypatch.setattr(costs, "measured", lambda grid, config: seconds)
    assert main(["run", "toy", "--runs", str(tmp_path / "none"), "--seeds", "1", "--workers", "3", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_seeds_trained_together_are_priced_together(capsys, monkeypatch, tmp_path):
    grid = dataclasses.replace(GRID, profiles={"short": GRID.profiles["short"] | {"together": 4}})
    monkeypatch.setitem(experiments.GRIDS, "toy", grid)
    monkeypatch.setattr(costs, "measured", lambda grid, config: 30.0)
    assert main(["run", "toy", "--runs", str(tmp_path), "--seeds", "1", "--only", "m=2", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "cost: about 2 min with 1 worker(s), from an epoch of the first run"


def test_report_prints_the_table_and_draws_the_figure(capsys, toy, tmp_path):
    for name in ("figure.png", "figure.html"):
        assert main(["report", *toy, "--figure", str(tmp_path / name)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(lines) // 2] == [
        "toy, profile short. Which is better?",
        "method  m  n  final accuracy   minus bn  pairs  diverged",
        "bn      2  2  0.6250 ± 1.5883",
        "bn      4  0                                    1 of 1",
        "ln      2  1  0.5000           +0.0000   1",
        "ln      4  1  0.5000",
        "final accuracy: on the test set after the last epoch; mean ± 95 % interval over n runs",
        "diverged runs are in no mean and no difference",
        f"drawn: {tmp_path / 'figure.png'}",
    ]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "figure.html").read_text()
    assert "mean and 95 % interval over at most 2 seed(s); 1 diverged run(s) are left out." in page
    assert page.count("<svg") == 1


@pytest.mark.parametrize("figure", ["epochs", "batch size"])
def test_the_figure_has_the_numbers_of_the_table(monkeypatch, toy, tmp_path, figure):
    drawn = []
    monkeypatch.setattr(plots, "show", lambda *axes, alt, caption: drawn.extend(axes))
    grid = dataclasses.replace(GRID, figure=figure)
    draw(experiments.summarize(grid, "short", tmp_path))
    lines = {(ax.get_title(), line.get_label()): line.get_xydata().tolist() for ax in drawn for line in ax.lines}
    if figure == "epochs":
        assert lines == {
            ("m 2", "bn"): [[1, 0.625], [2, 0.625]],
            ("m 2", "ln"): [[1, 0.5], [2, 0.5]],
            ("m 4", "ln"): [[1, 0.5], [2, 0.5]],
        }
    else:
        assert lines["", "ln"] == [[2, 0.5], [4, 0.5]]
        assert lines["", "bn"][0] == [2, 0.625]
        assert math.isnan(lines["", "bn"][1][1])


def test_a_grid_without_a_figure_says_so(capsys, monkeypatch, toy, tmp_path):
    monkeypatch.setitem(experiments.GRIDS, "toy", dataclasses.replace(GRID, figure=None))
    assert main(["report", *toy, "--figure", str(tmp_path / "a.png")]) == 2
    assert "grid toy has no figure" in capsys.readouterr().err
    assert main(["report", *toy]) == 0


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run"], ["run", "lenet-mnist", "--seeds", "five"]], ids=str)
def test_usage_errors(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: normlib" in capsys.readouterr().err
