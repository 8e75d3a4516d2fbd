"""Recorded runs: whole or absent, refused when damaged or stale, the same name for the same configuration."""

import copy
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import jsonschema
import pytest

from normlib.experiments import GRIDS, RecordError, load, read, records

CONFIG = {"model": "mlp", "dataset": "digits", "epochs": 2, "profile": "short", "seed": 0}
CURVES = {name: [0.5, 0.25] for name in records.CURVES}
COMMITTED = sorted(records.RUNS.glob("*/*.json"))
PUBLISHED = jsonschema.Draft202012Validator(json.loads((records.RUNS / "schema.json").read_text()))


def make(diverged_at=None, **config):
    config = CONFIG | config
    return {
        "schema": records.SCHEMA,
        "results_version": records.RESULTS_VERSION,
        "grid": "tiny",
        "id": records.config_id(config),
        "config": config,
        "curves": copy.deepcopy(CURVES),
        "final": 0.25,
        "best": 0.5,
        "per_class": [0.25] * 10,
        "diverged_at": diverged_at,
        "environment": dict.fromkeys(("device", "torch", "commit", "started", "finished"), "here"),
    }


def test_round_trip(tmp_path):
    path = records.write(make(), tmp_path)
    assert path == tmp_path / "tiny" / f"{records.config_id(CONFIG)}.json"
    assert read(path) == make()
    assert path.read_bytes().endswith(b"}\n")
    assert path.stat().st_mode & 0o777 == 0o644
    again = records.write(make(), tmp_path)
    assert list(path.parent.iterdir()) == [again]


def test_the_id_depends_on_the_configuration_and_on_nothing_else():
    id = records.config_id(CONFIG)
    assert records.config_id(dict(reversed(CONFIG.items()))) == id
    assert len(id) == 12
    assert int(id, 16) >= 0
    for key in CONFIG:
        assert records.config_id(CONFIG | {key: "other"}) != id
    assert records.config_id({"a": 1}) == "015abd7f5cc5"  # the same on every machine, in every version


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failing_write_leaves_nothing(tmp_path, monkeypatch, failing):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        records.write(make(), tmp_path)
    assert list((tmp_path / "tiny").iterdir()) == []


def test_a_failing_write_keeps_the_old_record(tmp_path, monkeypatch):
    path = records.write(make(), tmp_path)
    before = path.read_bytes()

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        records.write(make() | {"best": 0.75}, tmp_path)
    assert [p.read_bytes() for p in path.parent.iterdir()] == [before]


def without(record, key):
    del record[key]


WRONG = {
    "schema": (lambda r: r.update(schema=2), "schema must be 1, got 2"),
    "stale": (lambda r: r.update(results_version=0), "stale: made with results version 0, now .*run it again"),
    "missing key": (lambda r: without(r, "best"), "keys must be"),
    "other key": (lambda r: r.update(more=1), "keys must be"),
    "changed configuration": (lambda r: r["config"].update(seed=1), "id is not the hash of config"),
    "no configuration": (lambda r: r.update(config=None), "config must hold the number of epochs"),
    "no epochs": (lambda r: without(r["config"], "epochs"), "config must hold the number of epochs"),
    "no curves": (lambda r: r.update(curves=[]), "curves must be"),
    "missing curve": (lambda r: without(r["curves"], "test_loss"), "curves must be"),
    "curve not a list": (lambda r: r["curves"].update(test_loss=1.0), "curve test_loss must be a list, got 1.0"),
    "short curve": (lambda r: r["curves"]["test_loss"].pop(), "curve test_loss must have 2 epochs"),
    "null": (lambda r: r["curves"].update(test_loss=[0.5, None]), "curve test_loss holds a value not finite"),
    "text": (lambda r: r["curves"].update(test_loss=[0.5, "1"]), "curve test_loss holds a value not finite"),
    "final": (lambda r: r.update(final=0.3), "final is not the last"),
    "best": (lambda r: r.update(best=None), "best is not finite"),
    "per class": (lambda r: r.update(per_class=None), "per_class must be a list, got None"),
    "share": (lambda r: r.update(best=1.5), r"best must be in \[0, 1\], got \[1\.5\]"),
    "null class": (lambda r: r.update(per_class=[None]), "per_class is not finite"),
    "environment": (lambda r: without(r["environment"], "device"), "environment incomplete"),
    "no environment": (lambda r: r.update(environment="here"), "environment must be an object"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_record_is_refused_by_name_and_reason_and_never_written(tmp_path, wrong):
    change, reason = WRONG[wrong]
    record = make()
    change(record)
    path = records.write(make(), tmp_path)
    path.write_text(json.dumps(record))
    with pytest.raises(RecordError, match=f"{path.name}: {reason}"):
        read(path)
    fresh = tmp_path / "fresh"
    with pytest.raises(RecordError, match=reason):
        records.write(record, fresh)
    assert not fresh.exists()


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'{"schema": 1}'])
def test_a_damaged_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "aaaabbbbcccc.json"
    path.write_bytes(text)
    with pytest.raises(RecordError, match=path.name):
        read(path)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_values_that_are_not_finite_are_refused_wherever_they_stand(tmp_path, value):
    path = records.write(make(), tmp_path)
    path.write_text(path.read_text().replace('"best": 0.5', f'"best": {value}'))
    with pytest.raises(RecordError, match=f"{path.name}: not JSON .*{value}"):
        read(path)
    record = make()
    record["curves"]["train_loss"][0] = float(value)
    with pytest.raises(RecordError, match="curve train_loss holds a value not finite"):
        records.write(record, tmp_path)


def test_a_half_written_file_is_refused(tmp_path):
    path = records.write(make(), tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RecordError, match=f"{path.name}: not JSON"):
        read(path)


def test_a_record_under_another_name_is_refused(tmp_path):
    path = records.write(make(), tmp_path)
    other = path.with_name("0123456789ab.json")
    path.rename(other)
    with pytest.raises(RecordError, match=f"{other.name}: file name must be {path.name}"):
        read(other)


def test_a_diverged_run_has_gaps(tmp_path):
    record = make(diverged_at=7)
    record |= {"final": None, "best": 0.5}
    record["curves"] = {name: [0.5, None] for name in records.CURVES} | {"epoch_seconds": [0.5, 0.5]}
    assert read(records.write(record, tmp_path)) == record


def test_load_gives_a_row_per_run(tmp_path):
    for seed in (1, 0):
        records.write(make(seed=seed), tmp_path)
    records.write(make(profile="full"), tmp_path)
    table = load("tiny", runs=tmp_path)
    assert len(table) == 3
    short = load("tiny", profile="short", runs=tmp_path)
    assert short["seed"].tolist() == [0, 1]
    assert short["test_accuracy"].tolist() == [[0.5, 0.25]] * 2
    assert short["seconds"].tolist() == [0.75, 0.75]
    assert short["final"].tolist() == [0.25, 0.25]


def test_load_refuses_what_is_not_there_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no record of grid 'tiny'.* normlib run tiny"):
        load("tiny", runs=tmp_path)
    path = records.write(make(), tmp_path)
    with pytest.raises(FileNotFoundError, match="profile 'full'"):
        load("tiny", profile="full", runs=tmp_path)
    path.write_text("{")
    with pytest.raises(RecordError, match=path.name):
        load("tiny", runs=tmp_path)


@pytest.mark.parametrize("harm", ["stale", "damaged"])
def test_load_does_not_mind_what_is_wrong_with_another_profile(tmp_path, harm):
    records.write(make(), tmp_path)
    path = records.write(make(profile="full"), tmp_path)
    wrong = {"stale": {"results_version": 0}, "damaged": {"curves": None}}[harm]
    path.write_text(json.dumps(make(profile="full") | wrong))
    assert len(load("tiny", profile="short", runs=tmp_path)) == 1
    for profile in ("full", None):
        with pytest.raises(RecordError, match=path.name):
            load("tiny", profile=profile, runs=tmp_path)


# Where a run was made


@pytest.fixture
def fresh_commit():
    records.commit.cache_clear()
    yield
    records.commit.cache_clear()


def answering(monkeypatch, answers):
    """git, as if; answers by its first argument, None for a failure."""
    asked = []

    def run(command, **options):
        asked.append(command[1])
        answer = answers[command[1]]
        return subprocess.CompletedProcess(command, 128 if answer is None else 0, answer or "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


@pytest.mark.parametrize(
    ("answers", "commit"),
    [
        ({"rev-parse": "abc\n", "ls-files": "records.py\n", "status": ""}, "abc"),
        ({"rev-parse": "abc\n", "ls-files": "records.py\n", "status": " M training.py\n"}, "abc-dirty"),
        ({"rev-parse": "abc\n", "ls-files": None}, None),  # installed in another project's folder
        ({"rev-parse": None}, None),
    ],
)
def test_the_commit_is_that_of_the_code_that_runs(monkeypatch, fresh_commit, answers, commit):
    asked = answering(monkeypatch, answers)
    assert records.commit() == commit
    before = len(asked)
    assert records.environment("cpu", datetime.now(timezone.utc))["commit"] == commit
    assert len(asked) == before  # whatever has been committed since


def test_without_git_there_is_no_commit(monkeypatch, fresh_commit, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert records.environment("cpu", datetime.now(timezone.utc))["commit"] is None


def test_the_device_is_named_as_the_system_names_it(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: "processor\t: 0\nmodel name\t: Abacus: 7\n")
    assert records.environment("cpu", datetime.now(timezone.utc))["device"] == "Abacus: 7"
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: "processor\t: 0\n")
    assert records.environment("cpu", datetime.now(timezone.utc))["device"] in (
        platform.processor(),
        platform.machine(),
    )


def test_there_are_committed_records():
    assert COMMITTED


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_committed_records_are_valid_and_of_a_grid(path):
    record = read(path)
    assert record["grid"] == path.parent.name
    assert record["results_version"] == records.RESULTS_VERSION
    assert record["config"]["profile"] in GRIDS[record["grid"]].profiles
    PUBLISHED.validate(record)


def test_nothing_but_records_is_committed():
    """No lock, checkpoint or damaged file; those have names that git ignores."""
    strays = {p for p in records.RUNS.glob("*/*") if p.suffix != ".json" and not p.name.startswith(".")}
    assert {p for p in strays if ".damaged" not in p.name} == set()


@pytest.mark.parametrize("wrong", ["schema", "missing key", "other key", "no curves", "text", "per class"])
def test_the_published_schema_refuses_what_the_validator_refuses(wrong):
    record = make(size=8, norm="bn", batch_size=2, learning_rate=0.1, momentum=0.0)
    record["environment"] |= {"commit": None}
    PUBLISHED.validate(record)
    WRONG[wrong][0](record)
    assert not PUBLISHED.is_valid(record)


def test_a_damaged_file_is_set_aside_under_a_name_of_its_own(tmp_path):
    path = tmp_path / "a.json"
    for number, name in enumerate(("a.json.damaged", "a.json.damaged2", "a.json.damaged3")):
        path.write_text(str(number))
        assert records.set_aside(path) == tmp_path / name
    assert [p.read_text() for p in sorted(tmp_path.iterdir())] == ["0", "1", "2"]


def test_a_stale_record_is_told_from_a_damaged_one(tmp_path):
    path = records.write(make(), tmp_path)
    path.write_text(json.dumps(make() | {"results_version": 0}))
    with pytest.raises(records.StaleRecordError, match="stale: made with results version 0"):
        read(path)


def test_the_rates_on_photographs_are_those_that_held_out_images_chose():
    tried = load("mbn-rates", profile="cpu")
    for method, settings in GRIDS["all-methods"].profiles["cpu"]["axes"]["method"].items():
        runs = tried[tried.method == method].set_index("learning_rate").final.sort_index()
        best = runs.idxmax()
        assert settings["learning_rate"] == best, method
        assert runs.index[0] < best < runs.index[-1], f"{method}: the list of rates ends at its best"
