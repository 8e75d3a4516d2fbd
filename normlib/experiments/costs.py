"""What the runs of a grid cost: from records alike, or from one measured epoch."""

import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from . import records, runner
from .workers import Processes

PATIENCE = 30  # seconds for the start of a worker and two epochs


def recorded(grid: str, configs: list[dict], runs: Path = records.RUNS) -> list[float | None]:
    """Seconds each configuration is expected to take, the median over the records that are most alike; None: none is.

    Most alike are other seeds of the same configuration, then runs of the same layer, then any of the profile.
    """
    known = []
    for path in sorted((Path(runs) / grid).glob("*.json")):
        try:
            record = records.read(path)
        except records.RecordError:
            continue  # `normlib run` will name it and make it anew
        known.append((record["config"], _seconds(record)))
    return [_alike(config, known) for config in configs]


def _seconds(record: dict) -> float:
    """With evaluation, which epoch_seconds leaves out, unless the run was interrupted: then without."""
    started, finished = (datetime.fromisoformat(record["environment"][k]) for k in ("started", "finished"))
    whole = (finished - started).total_seconds() / record["config"].get("together", 1)
    return max(whole, sum(record["curves"]["epoch_seconds"]))


def _alike(config: dict, known: list[tuple[dict, float]]) -> float | None:
    def same(keys):
        return [seconds for other, seconds in known if all(other.get(k) == config.get(k) for k in keys)]

    for keys in (config.keys() - {"seed"}, ("profile", "norm", "dataset"), ("profile",)):
        if found := same(keys):
            return median(found)
    return None


class _EnoughError(Exception):
    """The seconds of an epoch are known."""


def _measure(grid: str, config: dict, checkpoint: Path | None) -> float:
    times = [time.perf_counter()]

    def on_epoch(epoch: int) -> None:
        times.append(time.perf_counter())
        if epoch == min(2, config["epochs"]):  # the first epoch also loads the data
            raise _EnoughError

    with suppress(_EnoughError):
        runner.execute(grid, config, on_epoch=on_epoch)
    return (times[-1] - times[-2]) * config["epochs"] / config.get("together", 1)


def measured(grid: str, config: dict) -> float | None:
    """Seconds of one run, from an epoch of it made now in a worker; None if that takes longer than PATIENCE.

    Raises:
        OSError: the data are not there.
    """
    crew = Processes(1, _measure)
    try:
        return crew.submit(grid, config, None).result(PATIENCE)
    except FutureTimeoutError:
        return None
    finally:
        crew.stop()
