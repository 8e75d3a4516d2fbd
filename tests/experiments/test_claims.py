"""Every claim has a row, every row leads somewhere, and verdicts follow from intervals by the stated rule."""

import json
import math
from pathlib import Path

import pytest
import torch

from normlib.experiments import GRIDS, claims, records
from normlib.experiments.verdicts import Part, identity, measured, verdict
from tools import notebooks

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"
EXACT = ("000-2", "000-3", "001-7", "MBN-1")  # settled by arithmetic, without records or training
NAN = float("nan")


@pytest.fixture(autouse=True)
def forget():
    """What is read in one test must not answer the next."""
    claims._runs.cache_clear()
    yield
    claims._runs.cache_clear()


def part(claimed, estimate, half, **more):
    return Part("a − b", claimed, estimate, half, **{"n": 5, "kind": "live", **more})


@pytest.mark.parametrize(
    ("claimed", "estimate", "half", "answer"),
    [
        ("+", 2, 1, "supported"),
        ("+", -2, 1, "contradicted"),
        ("+", 0.5, 1, "undecided"),
        ("-", -2, 1, "supported"),
        ("-", 2, 1, "contradicted"),
        ("-", -1, 1, "undecided"),
        ("--", -3, 1, "supported"),
        ("--", 0.5, 1, "contradicted"),
        ("--", -1.5, 1, "undecided"),
        (">=", 0, 0.9, "supported"),
        (">=", -0.5, 0.4, "contradicted"),
        (">=", 0, 1.1, "undecided"),
        ("=", 0, 0.9, "supported"),
        ("=", 0.5, 0.4, "contradicted"),
        ("=", -0.5, 0.4, "contradicted"),
        ("=", 0, 1.1, "undecided"),
        ("within", 0.9, 0, "supported"),
        ("within", -1.1, 0, "contradicted"),
        ("identity", 1e-13, 0, "supported"),
        ("identity", 1e-11, 0, "contradicted"),
        ("none", 5, 1, "undecided"),
        ("+", 5, NAN, "undecided"),
    ],
)
def test_an_answer_follows_from_the_interval(claimed, estimate, half, answer):
    assert part(claimed, estimate, half).answer == answer


def test_no_runs_give_no_answer():
    for claimed in ("+", "-", "--", ">=", "=", "within"):
        assert measured("a − b", [], claimed, "recorded").answer == "no record yet"


def test_an_unknown_claim_about_a_number_is_refused():
    with pytest.raises(ValueError, match="claimed must be one of"):
        part(">", 1, 0)


YES, NO, OPEN, NONE = part("+", 2, 1), part("+", -2, 1), part("+", 0, 1), part("+", NAN, NAN, n=0)


@pytest.mark.parametrize(
    ("parts", "correction", "expected"),
    [
        ([YES, YES], None, "reproduced"),
        ([YES, part("none", 0, 1)], None, "reproduced"),
        ([YES, OPEN], None, "reproduced in part"),
        ([YES, NONE], None, "reproduced in part"),
        ([YES, NO], None, "reproduced in part"),
        ([YES, NO], "rather so", "corrected"),
        ([YES, YES], "rather so", "reproduced"),
        ([NO, OPEN], None, "not reproduced"),
        ([OPEN, NONE], "rather so", "undecided"),
        ([NONE, NONE], None, "not testable here"),
        ([], None, "not testable here"),
    ],
)
def test_a_verdict_follows_from_the_answers(parts, correction, expected):
    assert verdict(parts, correction) == expected


def test_a_measurement_has_a_student_interval_and_says_what_it_leaves_out():
    found = measured("a − b", [1.0, 2.0, NAN, 3.0], "+", "recorded")
    assert (found.estimate, found.n, found.left_out) == (2.0, 3, 1)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.text() == "a − b: **+2.0 ± 2.5** points (n = 3, recorded; 1 diverged and left out) — undecided"
    assert measured("a", [-0.2], "-", "live").text() == "a: **−0.2** points (n = 1, no interval; live) — undecided"


def test_an_identity_takes_float64_only():
    x = torch.arange(3.0)
    assert identity("x", x.double(), x.double()).answer == "supported"
    with pytest.raises(ValueError, match="float64"):
        identity("x", x, x)
    with pytest.raises(ValueError, match="one shape"):
        identity("x", x.double(), x.double()[:1])


def test_every_claim_has_a_row_and_every_row_a_claim():
    assert list(claims.CLAIMS) == list(claims.IDS)
    counts = {seed: sum(name.startswith(f"{seed}-") for name in claims.IDS) for seed in claims.SOURCES}
    assert counts == {"000": 11, "001": 7, "002": 3, "003": 5, "004": 8, "papers": 0}
    assert {claim.source for claim in claims.CLAIMS.values()} == set(claims.SOURCES)


def test_a_missing_or_extra_row_is_an_error():
    with pytest.raises(ValueError, match="000-3"):
        claims.complete([name for name in claims.IDS if name != "000-3"], claims.IDS)
    with pytest.raises(ValueError, match="000-12"):
        claims.complete([*claims.IDS, "000-12"], claims.IDS)
    with pytest.raises(ValueError, match="000-1"):
        claims.summary([])
    with pytest.raises(ValueError, match="005-1"):
        claims._entry("005-1", "a claim", scale="none")(lambda: ())


@pytest.mark.parametrize("name", claims.IDS)
def test_a_row_leads_to_a_section_of_the_book(name):
    assert claims.CLAIMS[name].where
    for file, heading in claims.CLAIMS[name].where:
        cells = json.loads((CHAPTERS / f"{file}.ipynb").read_text(encoding="utf-8"))["cells"]
        lines = [
            line.strip() for c in cells if c["cell_type"] == "markdown" for line in "".join(c["source"]).split("\n")
        ]
        assert not heading or f"## {heading}" in lines or f"### {heading}" in lines, f"{file} has no “{heading}”"


def test_every_chapter_on_a_method_has_a_claim_to_test():
    led_to = {file for claim in claims.CLAIMS.values() for file, _ in claim.where}
    chapters = {path.stem for path in notebooks.numbered()} - {"08_side_by_side", "09_choosing"}  # of all methods
    missing = sorted(chapters - led_to)
    assert not missing, f"normlib/experiments/claims.py: no claim leads to {missing}"


@pytest.mark.parametrize("source", claims.SOURCES.values())
def test_the_page_of_claims_has_a_section_for_every_source(source):
    text = (CHAPTERS / "A_claims.ipynb").read_text(encoding="utf-8")
    assert f'"## {source}\\n"' in text


@pytest.mark.parametrize("name", EXACT)
def test_what_arithmetic_settles_is_reproduced(name):
    assert claims.judge(name).verdict == "reproduced"


def test_no_verdict_depends_on_the_clock_or_on_a_part_that_cannot_come():
    again = [claims.judge("003-3").parts for _ in range(2)]
    assert again[0] == again[1]
    assert {p.kind for p in again[0]} == {"recorded"}
    assert "no record yet" not in {p.answer for p in claims.judge("BRN-3").parts}


SAID = {  # claim: {a line of it, or part of it: what a correction or note that stands in claims.py takes from it}
    "000-1": {"Var ξ_μ of uniform": "supported", "Var ξ_σ of uniform": "contradicted"},
    "000-3": {"with the rule": "supported"},
    "001-2": {"He's gain: log β, none − BN": "supported", "torch's gain: log β, none − BN": "contradicted"},
    "001-3": {
        "BN at m = 16": "contradicted",
        "perceptron, loses more than a point: BN at m = 8": "undecided",
        "BN at m = 4": "supported",
    },
    "001-5": {"training": "supported", "evaluation": "contradicted"},
    "002-2": {f"m = 16: test, ramp from {start}": "undecided" for start in (20, 50)},
    "002-3": {"over (M, H, W)": "supported", "over (M, C)": "contradicted"},
    "003-5": {
        "share of saturated units, gain 8": "supported",
        "first layer over the last, gain 8": "contradicted",
        "share of saturated units, normalized": "supported",
    },
    "004-2": {
        "never on": "supported",
        "at He's gain": "supported",
        "at torch's gain": "contradicted",
    },
    "004-3": {
        "norm, centered": "supported",
        "curvature, centered": "supported",
        "norm, both": "contradicted",
    },
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch.func.hessian's own
@pytest.mark.parametrize("name", SAID)
def test_what_corrections_and_notes_say_is_what_the_lines_say(name):
    parts = claims.judge(name).parts
    for label, answer in SAID[name].items():
        assert [p.answer for p in parts if label in p.label] == [answer], label
    by_label = {p.label: p for p in parts}
    if name == "001-2":  # "it trains far better where it is the rougher one"
        trained = by_label["torch's gain, test accuracy: BN − none"]
        assert trained.estimate - trained.half > 5
    if name == "001-3":  # "large at 4"
        assert by_label["perceptron, loses more than a point: BN at m = 4 − at m = 32"].estimate < -5
    if name == "003-5":  # "which vanishes where they are small"
        assert by_label["gradient at the first layer over the last, gain 1/4"].estimate < -6


def test_the_correction_of_003_4_says_what_its_lines_say():
    found = {p.label: p for p in claims.judge("003-4").parts if p.kind == "recorded"}
    resolved = {label.removesuffix(" − the others") for label, p in found.items() if p.estimate + p.half < 0}
    assert resolved == {"momentum 0.9: 7 and 9", "momentum 0.9: 9", "rate 0.9: 6", "rate 0.9: 8"}


def test_test_accuracy_alone_decides_002_1_and_settings_of_the_seed_002_2():
    for name in ("002-1", "002-2"):
        counted = [p.label for p in claims.judge(name).parts if p.claimed != "none"]
        assert counted
        assert all(": test," in label and "ramp from 0" not in label for label in counted)


def test_a_minor_drop_is_one_within_the_margin(monkeypatch, tmp_path, make_record):
    monkeypatch.setattr(records, "RUNS", tmp_path)
    last = {("mbn", "thin ResNet-20"): [0.298, 0.301, 0.3], ("mbn", "thin ResNet-8"): [0.3, 0.302, 0.301]}
    for config in GRIDS["mbn-fig6b"].configs("cpu", 3):
        finals = last.get((config["method"], config["network"]))
        if finals:
            records.write(make_record("mbn-fig6b", config, finals[config["seed"]]), tmp_path)
    part = claims.judge("000-10").parts[1]
    assert (part.n, part.answer) == (3, "supported")
    assert part.estimate == pytest.approx(1 - 0.4 / 3)


def test_own_rates_are_chosen_on_other_seeds(monkeypatch):
    def read(grid, profile, *, method, m, rate):
        return {
            seed: {"0.0125": 90.0, "0.05": 80.0}.get(rate, 10.0) + (seed > 4) * (rate == "0.05") * 15
            for seed in range(20 if rate == "0.0125" else 10)  # at the chosen rate there are more
        }

    monkeypatch.setattr(claims, "read", read)
    assert claims._own_rate("bn", 4) == dict.fromkeys(range(5, 20), 90.0)
    monkeypatch.setattr(claims, "read", lambda *_, **__: {0: 90.0})
    assert claims._own_rate("bn", 4) == {}


@pytest.mark.parametrize("name", ["001-5", "001-6", "002-3", "004-7", "BRN-3", "GN-1"])
def test_identities(name, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "RUNS", tmp_path)
    exact = [p for p in claims.judge(name).parts if p.claimed == "identity"]
    false = {"001-5": ["IN and BN at N = 1, evaluation"], "002-3": ["statistics per microbatch, over (M, C)"]}
    assert exact
    assert [p.label for p in exact if p.answer == "contradicted"] == false.get(name, [])


def recorded(folder, make_record, finals):
    """Store finals {(method, m): [of seed 0, 1, …]} of CIFAR-10 in mbn-fig4, profile cpu."""
    for config in GRIDS["mbn-fig4"].configs("cpu", 3):
        found = finals.get((config["method"], config["m"]), []) if config["dataset"] == "cifar10" else []
        if config["seed"] < len(found):
            records.write(make_record("mbn-fig4", config, found[config["seed"]]), folder)


def test_records_decide_as_they_arrive(monkeypatch, tmp_path, make_record):
    monkeypatch.setattr(records, "RUNS", tmp_path)
    nothing = claims.judge("000-5")
    assert nothing.verdict == "not testable here"
    assert "No record yet: CIFAR-10: MBN − BN; CIFAR-10: MBN − LN" in claims.card(nothing)

    claims._runs.cache_clear()
    recorded(tmp_path, make_record, {("mbn", "2"): [0.60, 0.61, 0.62], ("bn", "2"): [0.50, 0.51, 0.53]})
    some = claims.judge("000-5")
    assert some.verdict == "reproduced in part"
    assert (some.parts[0].n, some.parts[0].answer) == (3, "supported")
    assert some.parts[0].estimate == pytest.approx((10 + 10 + 9) / 3)

    claims._runs.cache_clear()
    recorded(tmp_path, make_record, {("in", "any"): [0.70, 0.71, 0.73]})
    assert claims.judge("000-5").parts[2].answer == "contradicted"


def test_a_diverged_run_is_left_out_and_counted(monkeypatch, tmp_path, make_record):
    monkeypatch.setattr(records, "RUNS", tmp_path)
    recorded(tmp_path, make_record, {("mbn", "32"): [0.60, 0.61, None], ("bn", "32"): [0.60, 0.61, 0.62]})
    (level,) = (part for part in claims.judge("000-4").parts if part.label.startswith("CIFAR-10, m = 32"))
    assert (level.n, level.left_out, level.estimate) == (2, 1, 0)


def test_a_card_shows_the_correction_only_with_its_verdict():
    claim = claims.CLAIMS["000-3"]
    for parts, shown in (((YES,), False), ((YES, NO), True)):
        changed = claims.Claim(claim.id, claim.text, claim.where, claim.scale, claim.measure, "rather so")
        text = claims.card(claims.Judged(changed, parts))
        assert ("rather so" in text) is shown
        assert f"[chapter 03]({claim.where[0][0]}.ipynb)" in text
