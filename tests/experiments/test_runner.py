"""One run: what a grid asks for can be built, and its record is determined by its configuration."""

import dataclasses
import json

import pytest
import torch

from normlib.datasets import Data
from normlib.experiments import GRIDS, Grid, execute, read, records, runner
from normlib.folding import alike

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


@pytest.fixture(autouse=True)
def one_thread():
    """As in the worker processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
            runner.check(config, grid.axes | grid.profiles[profile].get("axes", {}))
            assert needed <= set(config)
            json.dumps(config, allow_nan=False)
            with torch.device("meta"):  # shapes without numbers: ResNets by the hundred in seconds
                model = runner._model(config, STAND_IN)
            assert isinstance(model, torch.nn.Module)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_what_is_trained_together_can_be(grid):
    for profile in grid.profiles:
        for config in grid.configs(profile, 1):
            if config.get("together", 1) > 1:
                assert alike([runner._model(config, STAND_IN) for _ in range(2)]), config


def test_an_mlp_has_the_width_and_the_classes_asked_for():
    config = TINY.configs("short", 1)[0] | {"model": "mlp", "width": 5, "depth": 1}
    data = dataclasses.replace(STAND_IN, num_classes=3)
    assert [tuple(p.shape) for p in runner._model(config, data).parameters() if p.dim() == 2] == [(5, 3072), (3, 5)]


@pytest.mark.parametrize("entry", [{"model": "lenet"}, {"dataset": "digit"}], ids=str)
def test_an_unknown_model_or_data_set_is_refused(entry):
    ((key, value),) = entry.items()
    with pytest.raises(ValueError, match=f"{key} must be one of .*, got '{value}'; did you mean "):
        execute("tiny", TINY.configs("short", 1)[0] | entry)


def test_the_same_configuration_gives_the_same_curves():
    config = TINY.configs("short", 1)[1]
    (first,), (second,) = execute("tiny", config), execute("tiny", config)
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert first["curves"][name] == second["curves"][name]
    assert first["id"] == second["id"] == records.config_id(config)
    assert first["final"] == first["curves"]["test_accuracy"][-1]
    assert len(first["per_class"]) == 10


def test_a_diverging_run_is_recorded_as_such(tmp_path):
    config = TINY.configs("long", 1)[0] | {"learning_rate": 1e38}
    (record,) = execute("tiny", config)
    assert record["diverged_at"] == 1
    assert record["final"] is None
    assert read(records.write(record, tmp_path))["curves"]["train_loss"][0] is None


@pytest.mark.parametrize("name", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(tiny, monkeypatch, name):
    monkeypatch.setenv("NORMLIB_DEVICE", name)
    with pytest.raises(ValueError, match=f"NORMLIB_DEVICE must be a device of torch's here, got '{name}'"):
        runner.execute("tiny", tiny.configs("short", 1)[0])


def test_a_precision_that_is_not_known_is_refused(tiny):
    with pytest.raises(ValueError, match="autocast must be one of bfloat16, got 'float61'; did you mean 'bfloat16'"):
        runner.check(tiny.configs("short", 1)[0] | {"autocast": "float61"}, tiny.axes)


def test_a_configuration_and_the_environment_say_how_steps_are_made(tiny, monkeypatch):
    made = []
    monkeypatch.setattr(
        runner, "train", lambda *a, train=runner.train, **o: made.append(o) or train(*a, **o | {"compiled": False})
    )
    config = tiny.configs("short", 1)[0]
    (usual,) = runner.execute("tiny", config)
    monkeypatch.setenv("NORMLIB_COMPILE", "1")
    (other,) = runner.execute("tiny", config | {"autocast": "bfloat16"})
    assert [(o["autocast"], o["compiled"]) for o in made] == [(None, False), (torch.bfloat16, True)]
    assert [record["environment"]["compiled"] for record in (usual, other)] == [False, True]
    assert usual["id"] != other["id"]
    monkeypatch.setenv("NORMLIB_COMPILE", "yes")
    with pytest.raises(ValueError, match="NORMLIB_COMPILE must be 0 or 1, got 'yes'"):
        runner.execute("tiny", config)


def test_data_go_to_the_device(tiny, monkeypatch):
    monkeypatch.setenv("NORMLIB_DEVICE", "meta")  # the one device beside the CPU that every machine has
    assert runner.device() == "meta"
    images = runner._data("digits", 8, 20, 10, None, runner.device())
    assert images.x_train.is_meta
    assert images.y_test.is_meta
