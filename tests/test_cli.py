"""The command `normlib`: what it prints and how it exits."""

import re

import pytest

from normlib import experiments
from normlib.cli import main


def test_list_names_every_grid_profile_and_question(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(experiments.GRIDS)
    for line, grid in zip(lines, experiments.GRIDS.values(), strict=True):
        assert line.startswith(grid.name)
        assert ", ".join(grid.profiles) in line
        assert line.endswith(grid.question)


def test_run_passes_its_options_on_and_says_what_it_did(capsys, monkeypatch):
    asked = []

    def fake(grid, **options):
        asked.append((grid, options))
        return 3

    monkeypatch.setattr(experiments, "run", fake)
    assert main(["run", "lenet-mnist"]) == 0
    assert main(["run", "lenet-mnist", "--profile", "full", "--seeds", "7", "--workers", "2"]) == 0
    assert asked == [
        ("lenet-mnist", {"profile": "short", "seeds": 5, "workers": 1}),
        ("lenet-mnist", {"profile": "full", "seeds": 7, "workers": 2}),
    ]
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == f"3 run(s) recorded under {experiments.RUNS / 'lenet-mnist'}"
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "lenet"], "normlib: grid must be one of .*got 'lenet'"),
        (["run", "lenet-mnist", "--profile", "quick"], "normlib: profile must be one of short, full, got 'quick'"),
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


@pytest.mark.parametrize("error", [OSError("disk full"), experiments.RecordError("x.json: stale")])
def test_failures_are_reported_in_one_line(capsys, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(experiments, "run", fail)
    assert main(["run", "lenet-mnist"]) == 2
    assert capsys.readouterr().err == f"normlib: {error}\n"


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run"], ["run", "lenet-mnist", "--seeds", "five"]], ids=str)
def test_usage_errors(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: normlib" in capsys.readouterr().err
