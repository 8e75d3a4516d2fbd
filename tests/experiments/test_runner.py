"""Running a grid: each configuration once, whatever was there before."""

import json
from concurrent.futures import Future

import pytest
import torch

from normlib.datasets import Data
from normlib.experiments import GRIDS, Grid, RecordError, execute, load, read, records, run, runner

SETTINGS = {"model": "lenet5", "dataset": "digits", "size": 32, "epochs": 1, "batch_size": 500}
TINY = Grid(
    name="tiny",
    question="Does the runner run?",
    axes={
        "method": {"none": {"norm": "none"}, "bn": {"norm": "bn"}},
        "rate": {"0.1": {"learning_rate": 0.1, "momentum": 0.9}},
    },
    profiles={"short": SETTINGS, "long": SETTINGS | {"epochs": 2}},
)


class HerePool:
    """Runs the work at once in this process: no second start of Python in every test."""

    def __init__(self, workers, mp_context):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001  (as a worker process does, hand it to whoever asks for the result)
            future.set_exception(error)
        return future

    def shutdown(self, cancel_futures):
        assert cancel_futures


@pytest.fixture(autouse=True)
def one_thread():
    """As in the worker processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(runner, "ProcessPoolExecutor", HerePool)


def test_a_grid_is_every_combination_with_seeds_outermost():
    configs = TINY.configs("short", 2)
    assert [(c["seed"], c["method"]) for c in configs] == [(0, "none"), (0, "bn"), (1, "none"), (1, "bn")]
    common = {"profile": "short", "seed": 0, "rate": "0.1", "learning_rate": 0.1, "momentum": 0.9}
    assert configs[1] == SETTINGS | common | {"method": "bn", "norm": "bn"}


STAND_IN = Data(
    "none", torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]), torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_every_grid_has_distinct_runs_that_can_be_built(grid):
    assert GRIDS[grid.name] is grid
    assert grid.question.endswith(("?", "."))
    for profile in grid.profiles:
        configs = grid.configs(profile, 2)
        assert len({records.config_id(c) for c in configs}) == len(configs)
        needed = {"model", "dataset", "size", "epochs", "batch_size", "learning_rate", "momentum", "norm", "seed"}
        for config in configs:
            assert needed <= set(config)
            json.dumps(config, allow_nan=False)
            model = runner._model(config, STAND_IN)
            assert isinstance(model, torch.nn.Module)


def test_a_real_worker_process_writes_the_records(tmp_path):
    assert run(TINY, seeds=1, runs=tmp_path) == 2
    assert len(list((tmp_path / "tiny").iterdir())) == 2
    table = load("tiny", runs=tmp_path)
    assert sorted(table["method"]) == ["bn", "none"]
    assert read(next((tmp_path / "tiny").glob("*.json")))["environment"]["threads"] == 1
    assert run(TINY, seeds=1, runs=tmp_path) == 0


def test_what_is_recorded_is_skipped_and_left_alone(tmp_path, here):
    assert run(TINY, seeds=1, runs=tmp_path) == 2
    before = {p: p.read_bytes() for p in (tmp_path / "tiny").iterdir()}
    next(iter(before)).unlink()
    assert run(TINY, seeds=1, runs=tmp_path) == 1
    kept = list(before)[1]
    assert kept.read_bytes() == before[kept]
    assert run(TINY, seeds=1, runs=tmp_path) == 0


def test_the_same_configuration_gives_the_same_curves():
    config = TINY.configs("short", 1)[1]
    first, second = execute("tiny", config), execute("tiny", config)
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert first["curves"][name] == second["curves"][name]
    assert first["id"] == second["id"] == records.config_id(config)
    assert first["final"] == first["curves"]["test_accuracy"][-1]
    assert len(first["per_class"]) == 10


def test_a_diverging_run_is_recorded_as_such(tmp_path):
    config = TINY.configs("long", 1)[0] | {"learning_rate": 1e38}
    record = execute("tiny", config)
    assert record["diverged_at"] == 1
    assert record["final"] is None
    assert read(records.write(record, tmp_path))["curves"]["train_loss"][0] is None


def test_a_failing_run_stops_the_grid_and_keeps_what_is_done(tmp_path, here, monkeypatch):
    def fail_on_bn(grid, config):
        if config["norm"] == "bn":
            raise ArithmeticError("planted")
        return execute(grid, config)

    monkeypatch.setattr(runner, "execute", fail_on_bn)
    with pytest.raises(ArithmeticError, match="planted"):
        run(TINY, seeds=1, runs=tmp_path)
    assert [read(p)["config"]["method"] for p in (tmp_path / "tiny").iterdir()] == ["none"]


def test_a_damaged_record_stops_the_run_before_it_starts(tmp_path, here, monkeypatch):
    monkeypatch.setattr(runner, "execute", lambda *_: pytest.fail("ran"))
    id = records.config_id(TINY.configs("short", 1)[0])
    path = tmp_path / "tiny" / f"{id}.json"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(RecordError, match=path.name):
        run(TINY, seeds=1, runs=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": "lenet"}, "grid must be one of .*lenet-mnist.*, got 'lenet'"),
        ({"profile": "quick"}, "profile must be one of short, long, got 'quick'"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
    ids=str,
)
def test_refused_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(**{"grid": TINY, "runs": tmp_path} | arguments)
    assert list(tmp_path.iterdir()) == []
