"""The tables of `make bench`: what a partial run measures anew and leaves, how pages are served and shown."""

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import chapters, readers, steps
from benchmarks.pairs import Row
from normlib.layers import BatchChannelNorm, WSConv2d


def test_a_partial_run_replaces_its_own_rows_and_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "TARGET", tmp_path / "bench.json")
    monkeypatch.setattr(bench, "TRACKED", tmp_path / "tracked.json")
    bench.TRACKED.write_text(json.dumps({"date": "2000-01-01", "rows": [{"what": "older", "measured": 7.0}]}))
    fresh = bench._store([Row("a", 1.0)], {}, 0.5, keep=True)  # in a fresh clone
    assert [row["what"] for row in fresh["rows"]] == ["older", "a"]
    first = bench._store([Row("a", 1.0), Row("b", 2.0, 1.0)], {}, 0.5, keep=False)
    for row in first["rows"]:
        row["date"] = "2001-01-01T00:00"
    bench.TARGET.write_text(json.dumps(first))
    partial = bench._store([Row("c", 3.0, low=2.0, high=4.0), Row("a", 9.0)], {}, None, keep=True)
    assert [(row["what"], row["measured"]) for row in partial["rows"]] == [("a", 9.0), ("b", 2.0), ("c", 3.0)]
    assert [row["date"] for row in partial["rows"]] == [partial["date"], "2001-01-01T00:00", partial["date"]]
    whole = bench._store([Row("c", 4.0)], {}, None, keep=False)
    assert [row["what"] for row in whole["rows"]] == ["c"]


def test_the_readme_has_every_row_and_says_which_are_old():
    row = {"what": "a", "measured": 1.0, "unit": "×", "goal": 0.5, "low": 0.5, "high": 1.5, "met": False}
    result = {"device": "abacus", "cpus": 2, "torch": "2", "date": "2002-02-02T00:00", "load_before": None}
    result["rows"] = [row | {"date": "2001-01-01T00:00"}, row | {"what": "b", "date": result["date"], "low": None}]
    text = bench._with_table("Before\n<!-- bench -->\nold\n<!-- /bench -->\nAfter\n", result)
    lines = text.splitlines()
    assert (lines[0], lines[-2:]) == ("Before", ["<!-- /bench -->", "After"])
    assert "| a | 1 × | 0.50 to 1.50 | ≤ 0.5, **missed** |" in lines
    assert "| b | 1 × |  | ≤ 0.5, **missed** |" in lines
    assert "1 rows are of earlier runs, the first on 2001-01-01." in text
    assert "old" not in lines


def test_pages_are_served_as_a_static_host_does(tmp_path):
    (tmp_path / "a.html").write_text("<p>" + 1000 * "a")
    with readers._served(tmp_path) as address:
        with urllib.request.urlopen(f"{address}/a.html") as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert int(answer.headers["Content-Length"]) < 100
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/b.html")
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        sockets = set()
        for _ in range(2):
            connection.request("GET", "/a.html")
            assert connection.getresponse().read()
            sockets.add(connection.sock)
        assert len(sockets - {None}) == 1  # kept for the next request
        connection.close()


def test_a_low_score_is_marked_and_what_was_not_measured_is_a_dash():
    scores = {"performance": readers.LEAST - 1, "accessibility": readers.LEAST, "best-practices": None}
    row = readers.Measured("a.html", "phone", 2.5, 12.3, 4, None, None, None, scores)
    assert readers.line(row).split() == ["a.html", "phone", "12", "kB", "4", "–", "–", "–", "94!", "95", "–!"]
    assert "!" not in readers.line(readers.Measured("a.html", "phone", 2.5, 12.3, 4, 1.0, 2.0, 3.0, None))


def test_a_phone_is_as_slow_from_a_slow_machine_as_from_a_fast_one():
    for index in (700.0, 1083.0, 2000.0):
        assert index / readers.times_slower(index, readers.PHONE) == pytest.approx(readers.PHONE, rel=0.03)
    assert readers.times_slower(1750, readers.PHONE) == 4  # what Lighthouse does unless told
    assert readers.times_slower(100, readers.PHONE) == readers.times_slower(1083, None) == 1


def test_a_chapter_that_misses_its_budget_runs_again_and_the_quickest_run_counts(monkeypatch):
    times = {"a": [41.0, 39.0], "b": [50.0, 45.0, 60.0], "c": [1.0]}
    monkeypatch.setattr(chapters.execute, "chapters", lambda: [Path(f"{name}.ipynb") for name in times])
    left = {name: list(seconds) for name, seconds in times.items()}
    monkeypatch.setattr(chapters, "_run", lambda path: left[path.stem].pop(0))
    monkeypatch.setattr(chapters, "_speed", lambda: lambda: 100.0)
    monkeypatch.setattr(chapters.os, "environ", {})
    rows = {row.what: row for row in chapters.rows()}
    assert not any(left.values())
    found = {name: rows[f"running time of {name}, alone"] for name in times}
    assert {name: row.measured for name, row in found.items()} == {"a": 39.0, "b": 45.0, "c": 1.0}
    assert (found["b"].low, found["b"].high, found["c"].low) == (45.0, 60.0, None)
    assert [found[name].met for name in times] == [True, False, True]


def test_pages_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "HTML", tmp_path)
    with pytest.raises(readers.Skipped, match="make book"):
        readers.measure()
    (tmp_path / "a.html").write_text("")
    with pytest.raises(readers.Skipped, match=r"among a\.html, got b\.html"):
        readers.measure(["b.html"])


def test_every_method_of_chapter_08_has_its_recorded_cost():
    """After a method is added to the grid: `python -m benchmarks steps --readme`."""
    recorded = {row["what"]: row for row in json.loads(bench.TRACKED.read_text(encoding="utf-8"))["rows"]}
    for method in steps.GRID.axes["method"]:
        row = recorded[f"step of chapter 08's network with {method} / with nn.BatchNorm2d"]
        assert 0 < row["low"] <= row["measured"] <= row["high"], method


def test_a_method_is_timed_as_the_grid_has_it():
    net = steps.network(steps.norm_layer("bcn-estimate+ws"), standardized=True)
    norms = [module for module in net.modules() if isinstance(module, BatchChannelNorm)]
    assert len(norms) == 7
    assert all(norm.estimate and norm.num_groups == 4 for norm in norms)
    assert any(isinstance(module, WSConv2d) for module in net.modules())
    renorm = steps.norm_layer("brn")(8)
    assert (renorm.r_max, renorm.d_max) == (3, 5)
    assert steps.norm_layer("gn+ws")(8).num_groups == 4
    assert steps.norm_layer("none") is None
    assert steps.norm_layer("mbn")(8).momentum_lambda == 0.5


@pytest.mark.parametrize(
    ("measured", "goal", "text"),
    [
        (1.0514, 1.05, "1.051"),
        (1.05, 1.05, "1.05"),
        (1.04996, 1.05, "1.05"),
        (1952.3, None, "1950"),
        (0.98765, 1, "0.988"),
    ],
)
def test_rounding_never_hides_whether_a_goal_is_met(measured, goal, text):
    assert bench._rounded(measured, goal) == text
