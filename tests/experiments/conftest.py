"""A grid that takes no time, and workers that are this very process."""

from concurrent.futures import Future
from datetime import datetime, timezone

import pytest
from run_tiny import TINY

from normlib.experiments import jobs, records, runner


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture
def make_record():
    """A record as `execute` gives it, without training."""

    def make(grid: str, config: dict, final: float | None = 0.5, seconds: float = 1.0) -> dict:
        epochs = config["epochs"]
        curves = {name: [final] * epochs for name in records.CURVES[:-1]} | {"epoch_seconds": [seconds] * epochs}
        return {
            "schema": records.SCHEMA,
            "results_version": records.RESULTS_VERSION,
            "grid": grid,
            "id": records.config_id(config),
            "config": config,
            "curves": curves,
            "final": final,
            "best": final,
            "per_class": [final] * 10,
            "diverged_at": 1 if final is None else None,
            "environment": records.environment("cpu", datetime.now(timezone.utc)),
        }

    return make


class Here:
    """The interface of `workers.Processes`, in this process: no second start of Python in every test."""

    leads, died = True, (ConnectionAbortedError,)

    def __init__(self, slots):
        self.slots, self.found = slots, {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, grid, config, checkpoint):
        future = Future()
        note = {}
        try:
            future.set_result(
                runner.execute(grid, config, checkpoint, on_epoch=lambda e: note.update({records.config_id(config): e}))
            )
        except Exception as error:  # noqa: BLE001  (as a worker process does, hand it to whoever asks for the result)
            future.set_exception(error)
        self.found |= note
        return future

    def epochs(self):
        found, self.found = self.found, {}
        return found


@pytest.fixture
def here(monkeypatch, one_thread):
    """Runs are made in this process; gives the class that stands in for `workers.Processes`."""
    monkeypatch.setattr(jobs, "Processes", Here)
    return Here
