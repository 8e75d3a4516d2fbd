"""Making a grid's records: each once, whatever was there before and whatever happens meanwhile."""

import os
import time
from dataclasses import replace

import pytest

from normlib import datasets
from normlib.experiments import RecordError, RunWarning, WorkerError, jobs, load, locks, read, records, run, runner


@pytest.fixture
def fake(monkeypatch, make_record):
    """Records without training; returns the configurations asked for."""
    asked = []

    def execute(grid, config, checkpoint=None, on_epoch=lambda epoch: None):
        asked.append(config)
        on_epoch(config["epochs"])
        return [make_record(grid, c) for c in runner.members(config)]

    monkeypatch.setattr(runner, "execute", execute)
    return asked


@pytest.fixture
def paths(tiny, tmp_path):
    """Where the records of seed 0 belong."""
    (tmp_path / "tiny").mkdir()
    return [jobs.record_path(tmp_path / "tiny", c) for c in tiny.configs("short", 1)]


def test_what_is_recorded_is_skipped_and_left_alone(tiny, tmp_path, here, fake):
    assert run(tiny, seeds=2, runs=tmp_path) == 4
    assert fake == tiny.configs("short", 2)
    before = {p: p.read_bytes() for p in (tmp_path / "tiny").iterdir()}
    assert [p.suffix for p in before] == [".json"] * 4
    removed, *kept = before
    removed.unlink()
    assert run(tiny, seeds=2, runs=tmp_path) == 1
    assert all(p.read_bytes() == before[p] for p in kept)
    assert run(tiny, seeds=2, runs=tmp_path) == 0
    assert run(tiny, seeds=3, runs=tmp_path) == 2


def test_what_another_grid_has_recorded_is_taken_over(tiny, tmp_path, here, fake):
    assert run(tiny, seeds=1, runs=tmp_path) == 2
    other = replace(tiny, name="other")
    assert run(other, seeds=2, only=["method=bn"], runs=tmp_path) == 1
    assert len(fake) == 3
    assert run(other, seeds=1, runs=tmp_path) == 0
    for config in other.configs("short", 1):
        own, taken = (read(jobs.record_path(tmp_path / name, config)) for name in ("tiny", "other"))
        assert taken == own | {"grid": "other"}


def test_a_damaged_record_is_not_taken_over(tiny, tmp_path, here, fake, paths):
    paths[0].write_text("{")
    assert run(replace(tiny, name="other"), seeds=1, runs=tmp_path) == 2


@pytest.fixture
def pairs(tiny):
    """The grid with seeds that are trained two by two."""
    return replace(tiny, profiles={"short": tiny.profiles["short"] | {"together": 2}})


def test_seeds_trained_together_are_one_run(pairs, tmp_path, here, fake):
    assert run(pairs, seeds=3, runs=tmp_path) == 8  # blocks are whole
    assert [(c["method"], c["seed"]) for c in fake] == [("bn", 0), ("ln", 0), ("bn", 2), ("ln", 2)]
    before = {p: p.read_bytes() for p in (tmp_path / "tiny").iterdir()}
    removed = jobs.record_path(tmp_path / "tiny", pairs.configs("short", 2)[2])  # bn, seed 1
    removed.unlink()
    assert run(pairs, seeds=4, runs=tmp_path) == 1
    assert fake[-1]["seed"] == 0
    assert len(fake) == 5
    assert all(path.read_bytes() == text for path, text in before.items() if path != removed)
    assert read(removed)["config"]["seed"] == 1


def test_seeds_stopped_together_go_on_as_if_undisturbed(pairs, tmp_path, here, monkeypatch):
    config = pairs.configs("short", 1)[0]
    undisturbed = runner.execute("tiny", config)
    assert [record["config"]["seed"] for record in undisturbed] == [0, 1]
    checkpoint = tmp_path / "state"

    def stop(epoch):
        if epoch == 2:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        runner.execute("tiny", config, checkpoint, on_epoch=stop)
    resumed = []
    records = runner.execute("tiny", config, checkpoint, on_epoch=resumed.append)
    assert resumed == [3]
    for made, expected in zip(records, undisturbed, strict=True):
        for record in (made, expected):
            del record["environment"], record["curves"]["epoch_seconds"]
        assert made == expected


def test_some_of_a_grid(tiny, tmp_path, here, fake):
    assert run(tiny, seeds=2, only=["method=bn"], runs=tmp_path) == 2
    assert {c["method"] for c in fake} == {"bn"}
    assert run(tiny, seeds=2, only=["seed=1", "method=bn", "method=ln"], runs=tmp_path) == 1
    assert (fake[-1]["method"], fake[-1]["seed"]) == ("ln", 1)


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', "[NaN]"])
def test_a_damaged_record_is_named_set_aside_and_made_anew(tiny, tmp_path, here, fake, paths, text):
    paths[0].write_text(text)
    with pytest.raises(RecordError):
        load("tiny", runs=tmp_path)
    with pytest.warns(RunWarning, match=f"{paths[0].name}.*set aside as {paths[0].name}.damaged"):
        assert run(tiny, seeds=1, runs=tmp_path) == 2
    assert paths[0].with_name(paths[0].name + ".damaged").read_text() == text
    assert len(load("tiny", runs=tmp_path)) == 2
    paths[0].write_text(text)
    with pytest.warns(RunWarning, match=r"set aside as .*\.damaged2"):
        assert run(tiny, seeds=1, runs=tmp_path) == 1
    assert paths[0].with_name(paths[0].name + ".damaged").read_text() == text


def test_a_stale_record_is_named_and_replaced(tiny, tmp_path, here, fake, paths, monkeypatch):
    assert run(tiny, seeds=1, runs=tmp_path) == 2
    monkeypatch.setattr(records, "RESULTS_VERSION", records.RESULTS_VERSION + 1)
    with pytest.warns(RunWarning, match="stale") as caught:
        assert run(tiny, seeds=1, runs=tmp_path) == 2
    assert all(path.name in str(w.message) for path, w in zip(paths, caught, strict=True))
    assert sorted(p.name for p in (tmp_path / "tiny").iterdir()) == sorted(p.name for p in paths)
    assert read(paths[0])["results_version"] == records.RESULTS_VERSION


def test_a_run_that_another_process_makes_is_left_to_it(tiny, tmp_path, here, fake, paths):
    lock = locks.acquire(paths[0].with_name(f".{paths[0].stem}.lock"))
    with pytest.warns(RunWarning, match="1 run.* of tiny are being made by another process"):
        assert run(tiny, seeds=1, runs=tmp_path) == 1
    assert [c["method"] for c in fake] == ["ln"]
    lock.release()
    assert run(tiny, seeds=1, runs=tmp_path) == 1


def test_a_run_that_another_process_has_just_made_is_not_made_again(tiny, tmp_path, here, fake, monkeypatch):
    assert run(tiny, seeds=1, runs=tmp_path) == 2
    monkeypatch.setattr(jobs, "is_recorded", lambda path: False)  # we looked before that
    assert run(tiny, seeds=1, runs=tmp_path) == 0
    assert len(fake) == 2


def test_a_stopped_run_goes_on_from_its_last_epoch_and_ends_as_if_undisturbed(tiny, tmp_path, here, monkeypatch):
    (config,) = (c for c in tiny.configs("short", 1) if c["method"] == "bn")
    (undisturbed,) = runner.execute("tiny", config)
    epochs, execute = [], runner.execute

    def stopping(grid, config, checkpoint, on_epoch):
        def stop(epoch):
            epochs.append(epoch)
            if epochs == [1, 2]:
                raise OSError("no space left")
            on_epoch(epoch)

        return execute(grid, config, checkpoint, on_epoch=stop)

    monkeypatch.setattr(runner, "execute", stopping)
    with pytest.raises(OSError, match="no space left"):
        run(tiny, seeds=1, only=["method=bn"], runs=tmp_path)
    (left,) = (tmp_path / "tiny").iterdir()  # the lock is released
    assert left.suffix == ".ckpt"
    assert run(tiny, seeds=1, only=["method=bn"], runs=tmp_path) == 1
    assert epochs == [1, 2, 3]
    (path,) = (tmp_path / "tiny").iterdir()
    record = read(path)
    for part in (record, undisturbed):
        del part["environment"], part["curves"]["epoch_seconds"]
    assert record == undisturbed


def test_a_damaged_checkpoint_is_named_set_aside_and_not_used(tiny, tmp_path, here, paths):
    for path in paths:
        path.with_name(f".{path.stem}-{records.RESULTS_VERSION}.ckpt").write_bytes(b"half a check")
    with pytest.warns(RunWarning, match=r"\.ckpt: damaged.*set aside as .*\.ckpt\.damaged, trained anew") as caught:
        assert run(tiny, seeds=1, runs=tmp_path) == 2
    assert len(caught) == 2
    assert sorted(p.suffix for p in paths[0].parent.iterdir()) == [".damaged"] * 2 + [".json"] * 2


def test_a_checkpoint_of_another_results_version_is_not_used(tiny, tmp_path, here, fake, monkeypatch):
    used = []
    execute = runner.execute
    monkeypatch.setattr(runner, "execute", lambda g, c, k, **hooks: used.append(k.name) or execute(g, c, k, **hooks))
    run(tiny, seeds=1, only=["method=bn"], runs=tmp_path / "one")
    monkeypatch.setattr(records, "RESULTS_VERSION", records.RESULTS_VERSION + 1)
    run(tiny, seeds=1, only=["method=bn"], runs=tmp_path / "two")
    assert len(set(used)) == 2


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_run_whose_worker_died_is_tried_again(tiny, tmp_path, here, fake, monkeypatch, deaths):
    left = [ConnectionAbortedError] * deaths
    submit = here.submit

    def dying(self, *job):
        future = submit(self, *job)
        if left:
            self.found.clear()
            future = type(future)()
            future.set_exception(left.pop()())
        return future

    monkeypatch.setattr(here, "submit", dying)
    with pytest.warns(RunWarning, match="a worker died; .* bn 0") as caught:
        assert run(tiny, seeds=1, only=["method=bn"], runs=tmp_path) == 1
    assert len(caught) == deaths


def test_workers_that_always_die_end_the_grid(tiny, tmp_path, here, monkeypatch):
    def die(*args, **hooks):
        raise ConnectionAbortedError

    monkeypatch.setattr(runner, "execute", die)
    with pytest.warns(RunWarning), pytest.raises(WorkerError, match="died 3 times without finishing an epoch, at bn 0"):
        run(tiny, seeds=1, runs=tmp_path)
    assert list((tmp_path / "tiny").iterdir()) == []


def test_a_failing_run_stops_the_grid_and_keeps_what_is_done(tiny, tmp_path, here, fake, monkeypatch):
    execute = runner.execute

    def fail_on_ln(grid, config, *args, **hooks):
        if config["norm"] == "ln":
            raise ArithmeticError("planted")
        return execute(grid, config, *args, **hooks)

    monkeypatch.setattr(runner, "execute", fail_on_ln)
    with pytest.raises(ArithmeticError, match="planted"):
        run(tiny, seeds=1, runs=tmp_path)
    assert [read(p)["config"]["method"] for p in (tmp_path / "tiny").iterdir()] == ["bn"]


def test_an_error_says_which_run_it_is_of(tiny, tmp_path, here, monkeypatch):
    def fail(*args, **hooks):
        raise ArithmeticError("planted")

    monkeypatch.setattr(runner, "execute", fail)
    with pytest.raises(ArithmeticError) as raised:
        run(tiny, seeds=1, only=["method=ln"], runs=tmp_path)
    name = jobs.record_path(tmp_path, tiny.configs("short", 1)[1]).name
    assert str(raised.value) == "planted"
    assert raised.value.__notes__ == [f"in run ln any 0 ({name})"]


def test_data_are_fetched_once_before_any_worker_starts(tiny, tmp_path, here, fake, monkeypatch):
    fetched = []
    monkeypatch.setattr(datasets, "fetch", lambda name: fetched.append((name, len(fake))))
    assert run(tiny, seeds=1, runs=tmp_path) == 2  # digits, which are always there
    pictures = replace(tiny, name="pictures", profiles={"short": tiny.profiles["short"] | {"dataset": "mnist"}})
    fake.clear()
    assert run(pictures, seeds=1, workers=2, runs=tmp_path) == 2
    assert run(pictures, seeds=1, workers=2, runs=tmp_path) == 0
    assert fetched == [("mnist", 0)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"widht": 8}, "configuration key must be one of .*, got 'widht'; did you mean 'width'"),
        ({"model": "lenet"}, "model must be one of .*, got 'lenet'; did you mean 'lenet5'"),
        ({"dataset": "cifar11"}, "dataset must be one of .*, got 'cifar11'; did you mean 'cifar1"),
    ],
    ids=str,
)
def test_a_grid_with_an_entry_that_nothing_reads_is_refused(tiny, tmp_path, entry, message):
    grid = replace(tiny, profiles={"short": tiny.profiles["short"] | entry})
    with pytest.raises(ValueError, match=message):
        run(grid, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_counts_neither_what_is_recorded_nor_what_is_taken_over(pairs, tmp_path, here, fake):
    run(replace(pairs, name="other"), seeds=1, only=["method=bn"], runs=tmp_path)
    configs = pairs.configs("short", 2)
    absent = jobs.missing(configs, tmp_path / "tiny")
    assert [(c["method"], c["seed"]) for c in absent] == [("ln", 0), ("ln", 1)]
    assert [(c["method"], c["seed"]) for c in jobs.trainings(absent)] == [("ln", 0)]
    assert not (tmp_path / "tiny").exists()


def test_a_full_disk_costs_nothing_that_was_kept(tiny, tmp_path, here, monkeypatch):
    """The record cannot be written: the checkpoint of the last epoch stays, and is enough to write it later."""
    epochs, execute = [], runner.execute

    def watched(grid, config, checkpoint, on_epoch):
        return execute(grid, config, checkpoint, on_epoch=lambda e: epochs.append(e) or on_epoch(e))

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(runner, "execute", watched)
    with monkeypatch.context() as patch:
        patch.setattr(records, "write", full)
        with pytest.raises(OSError, match="disk full"):
            run(tiny, seeds=1, only=["method=ln"], runs=tmp_path)
    assert run(tiny, seeds=1, only=["method=ln"], runs=tmp_path) == 1
    assert epochs == [1, 2, 3]


def test_half_written_files_of_the_dead_are_swept_and_of_the_living_kept(tiny, tmp_path, here, fake, paths):
    old, young = (paths[0].with_name(f".{name}.part") for name in ("old", "young"))
    for part in (old, young):
        part.touch()
    os.utime(old, (time.time() - 2 * 3600,) * 2)
    run(tiny, seeds=1, runs=tmp_path)
    assert not old.exists()
    assert young.exists()


def test_what_a_killed_worker_left_of_a_checkpoint_goes_with_the_run(tiny, tmp_path, here, fake, paths):
    left = paths[0].with_name(f".{paths[0].stem}-{records.RESULTS_VERSION}.ckpt.abc.part")
    left.touch()
    run(tiny, seeds=1, runs=tmp_path)
    assert paths[0].exists()
    assert not left.exists()


def test_bars_count_epochs_of_every_run_and_of_the_grid(tiny, tmp_path, here, fake, monkeypatch):
    bars = {}

    class Bar:
        def __init__(self, total, desc, unit):
            self.total, self.n = total, 0
            bars[desc] = self

        def update(self, n):
            self.n += n

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.closed = True

    monkeypatch.setattr(jobs, "progress", Bar)
    run(tiny, seeds=1, runs=tmp_path)
    assert {desc: (bar.n, bar.total, bar.closed) for desc, bar in bars.items()} == {
        "tiny": (6, 6, True),
        "bn 0": (3, 3, True),
        "ln any 0": (3, 3, True),
    }


def test_an_unwritable_target_is_named(tiny, tmp_path, here, fake):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run(tiny, seeds=1, runs=tmp_path / "file")
    assert fake == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": "lenet-minst"}, "grid must be one of .*lenet-mnist.*, got 'lenet-minst'; did you mean 'lenet-mnist'"),
        ({"grid": "?"}, "grid must be one of .*, got '\\?'$"),
        ({"profile": "shrt"}, "profile must be one of short, long, got 'shrt'; did you mean 'short'"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"only": ["bn"]}, "only must be key=value, got 'bn'"),
        ({"only": ["methd=bn"]}, "only must be one of .*method.*, got 'methd'; did you mean 'method'"),
        ({"only": ["method=brn"]}, "only method must be one of bn, ln, got 'brn'; did you mean 'bn'"),
    ],
    ids=str,
)
def test_refused_arguments(tiny, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(**{"grid": tiny, "runs": tmp_path} | arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_of_a_seed_not_asked_for_is_set_aside_too(tiny, tmp_path, here, fake):
    run(tiny, seeds=2, runs=tmp_path)
    other = jobs.record_path(tmp_path / "tiny", tiny.configs("short", 2)[-1])
    other.write_text(other.read_text()[:300])
    with pytest.warns(RunWarning, match=f"{other.name}.*set aside as {other.name}.damaged"):
        assert run(tiny, seeds=1, runs=tmp_path) == 0
    assert not other.exists()


def test_a_choice_that_leaves_no_run_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="only must leave a run, got method=bn norm=ln, which no run of tiny"):
        run(tiny, seeds=1, only=["method=bn", "norm=ln"], runs=tmp_path)
    assert list(tmp_path.iterdir()) == []
