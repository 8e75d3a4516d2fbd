"""The table of a grid, against numbers worked out by hand."""

import math

import pytest

from normlib.experiments import Grid, RecordError, jobs, load, records, report, summarize

PAIR = Grid(
    name="pair",
    question="Which is better?",
    axes={
        "method": {"bn": {"norm": "bn"}, "mbn": {"norm": "mbn"}, "gn": {"norm": "gn"}},
        "m": {"2": {"virtual_batch_size": 2}, "16": {"virtual_batch_size": 16}},
    },
    profiles={"short": {"epochs": 2, "batch_size": 16, "model": "mlp"}},
    figure="batch size",
)


@pytest.fixture
def write(tmp_path, make_record):
    """Store finals {(method, m): [of seed 0, 1, …]}; None for a diverged run."""

    def store(finals, **changes):
        for config in PAIR.configs("short", max(map(len, finals.values()))):
            found = finals.get((config["method"], config["m"]), [])
            if config["seed"] < len(found):
                records.write(make_record("pair", config | changes, found[config["seed"]]), tmp_path)
        return tmp_path

    return store


def test_means_intervals_and_paired_differences(write):
    runs = write(
        {
            ("bn", "2"): [0.5, 0.6, 0.7],
            ("mbn", "2"): [0.6, 0.8, 0.7, 0.9],
            ("bn", "16"): [0.9],
            ("mbn", "16"): [None, 0.8],
            ("gn", "any"): [0.5, 0.5, 0.6],
        }
    )
    table = summarize(PAIR, "short", runs).table
    assert list(zip(table["method"], table["m"], strict=True)) == [
        (method, m) for method in ("bn", "mbn", "gn") for m in ("2", "16")
    ]
    rows = {(r["method"], r["m"]): r for r in table.to_dict("records")}
    t2, t3 = 4.302653, 3.182446  # Student's t at 0.975 with 2 and 3 degrees of freedom
    bn = rows["bn", "2"]
    assert (bn["n"], bn["diverged"], bn["pairs"]) == (3, 0, 0)
    assert bn["mean"] == pytest.approx(0.6)
    assert bn["half"] == pytest.approx(t2 * 0.1 / math.sqrt(3), rel=1e-6)
    assert math.isnan(bn["difference"])
    mbn = rows["mbn", "2"]
    assert (mbn["n"], mbn["pairs"]) == (4, 3)
    assert mbn["mean"] == pytest.approx(0.75)
    assert mbn["half"] == pytest.approx(t3 * math.sqrt(0.05 / 3) / 2, rel=1e-6)
    assert mbn["difference"] == pytest.approx(0.1)  # of 0.1, 0.2 and 0
    assert mbn["difference_half"] == pytest.approx(t2 * 0.1 / math.sqrt(3), rel=1e-6)
    assert (rows["mbn", "16"]["n"], rows["mbn", "16"]["diverged"], rows["mbn", "16"]["pairs"]) == (1, 1, 0)
    assert rows["gn", "2"]["mean"] == rows["gn", "16"]["mean"] == pytest.approx(1.6 / 3)
    assert rows["gn", "2"]["difference"] == pytest.approx(-0.2 / 3)  # of 0, −0.1, −0.1
    assert (rows["gn", "16"]["pairs"], rows["gn", "16"]["difference"]) == (1, pytest.approx(-0.4))
    assert math.isnan(rows["gn", "16"]["difference_half"])


def test_the_table_in_a_terminal(write):
    runs = write({("bn", "2"): [0.5, 0.6, 0.7], ("mbn", "2"): [0.6, 0.8, 0.7], ("mbn", "16"): [None, None]})
    assert report.text(summarize(PAIR, "short", runs)).splitlines() == [
        "method  m   n  final accuracy   minus bn          pairs  diverged",
        "bn      2   3  0.6000 ± 0.2484",
        "mbn     2   3  0.7000 ± 0.2484  +0.1000 ± 0.2484  3",
        "mbn     16  0                                            2 of 2",
    ]


def test_what_is_missing_and_what_the_grid_no_longer_has(write):
    runs = write({("bn", "2"): [0.5], ("gn", "any"): [0.4]})
    write({("bn", "2"): [0.9, 0.9]}, epochs=3)
    summary = summarize(PAIR, "short", runs)
    assert (summary.missing, summary.others) == (3, 2)
    assert summary.table["mean"].tolist() == [0.5, 0.4, 0.4]
    for config in PAIR.configs("short", 1):
        jobs.record_path(runs / "pair", config).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"as it is now.*normlib run pair --profile short"):
        summarize(PAIR, "short", runs)


def test_a_damaged_or_stale_record_is_never_averaged(write, monkeypatch):
    runs = write({("bn", "2"): [0.5, 0.6]})
    assert summarize(PAIR, "short", runs).table["n"].tolist() == [2]
    with monkeypatch.context() as patch:
        patch.setattr(records, "RESULTS_VERSION", records.RESULTS_VERSION + 1)
        with pytest.raises(RecordError, match="stale"):
            summarize(PAIR, "short", runs)
    path = next((runs / "pair").glob("*.json"))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RecordError, match=path.name):
        summarize(PAIR, "short", runs)


def test_a_grid_without_methods_and_other_axes(tmp_path, make_record):
    grid = Grid("rates", "Which?", {"rate": {"1": {"norm": "bn"}, "2": {"norm": "ln"}}}, {"p": {"epochs": 1}})
    for config in grid.configs("p", 2):
        records.write(make_record("rates", config, 0.25), tmp_path)
    table = summarize(grid, "p", tmp_path).table
    assert table["pairs"].tolist() == [0, 0]
    assert report.text(summarize(grid, "p", tmp_path)).splitlines()[1] == "1     2  0.2500 ± 0.0000"


def test_of_the_books_own_records():
    """As `load` and `plots.interval` have it."""
    from normlib import plots
    from normlib.experiments import GRIDS

    table = summarize(GRIDS["digits-batch-size"], "short").table
    runs = load("digits-batch-size", profile="short")
    for row in table.to_dict("records"):
        finals = runs[(runs["method"] == row["method"]) & (runs["m"].isin([row["m"], "any"]))]["final"]
        mean, half = plots.interval(finals)
        assert row["n"] == len(finals)
        assert row["mean"] == pytest.approx(mean)
        assert row["half"] == pytest.approx(half)


def test_a_method_with_runs_of_its_own_at_an_m_is_not_counted_twice_there(tmp_path, make_record):
    """Small m are the layer's alone, the largest is the batch: a per-sample method is run once for the former."""
    sizes = {"2": {"virtual_batch_size": 2, "batch_size": 16}, "64": {"batch_size": 64}}
    grid = Grid("both", "Which?", PAIR.axes | {"m": sizes}, {"p": {"epochs": 1}})
    finals = {("bn", "2"): 0.1, ("bn", "64"): 0.2, ("gn", "any"): 0.3, ("gn", "64"): 0.4}
    for config in grid.configs("p", 2):
        if (config["method"], config["m"]) in finals:
            final = finals[config["method"], config["m"]]
            records.write(make_record("both", config, final), tmp_path)
    table = summarize(grid, "p", tmp_path).table
    assert [(r["method"], r["m"], r["n"], r["mean"]) for r in table.to_dict("records")] == [
        ("bn", "2", 2, 0.1),
        ("bn", "64", 2, 0.2),
        ("gn", "2", 2, 0.3),
        ("gn", "64", 2, 0.4),
    ]


def test_of_equal_means_the_first_is_the_highest():
    hits = {"0.01": 3848, "0.05": 3849, "0.2": 3849}
    shares = {rate: count / 3985 for rate, count in hits.items()}
    assert report.highest(shares) == "0.05"
    assert report.highest(shares | {"0.2": shares["0.2"] + 2e-7}) == "0.05"
    assert report.highest(shares | {"0.2": 3850 / 3985}) == "0.2"
