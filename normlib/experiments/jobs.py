"""Make the missing records of a grid: nothing twice, nothing lost, whatever ends the process, and then go on."""

import time
import warnings
from collections import deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .. import checkpoints, datasets
from ..checkpoints import CheckpointError
from ..training import progress
from . import locks, records, runner, torchrun
from .cluster import Cluster
from .grids import GRIDS, Grid
from .runner import choice
from .workers import Processes

_TRIES = 3  # workers lost in a row without one finished epoch
_OLD = 3600  # seconds after which a half-written file is nobody's any more


class RunWarning(UserWarning):
    """Something about the records that the reader should know, and that does not stop the grid."""


class WorkerError(RuntimeError):
    """Workers die, or a cluster goes away, and trying again does not help."""


def select(grid: str | Grid, profile: str, seeds: int, only: Iterable[str] = ()) -> tuple[Grid, list[dict]]:
    """The grid and the configurations meant.

    Args:
        grid: a name from `GRIDS`, or a Grid.
        profile: which of its profiles.
        seeds: runs per combination, seeds 0 … seeds − 1.
        only: "key=value" for any entry of a configuration; several of one key are alternatives.

    Raises:
        ValueError: a name, a profile, a key or a value that is not there, seeds below 1, a configuration that
            `runner.check` refuses.
    """
    if isinstance(grid, str):
        grid = GRIDS[choice("grid", grid, GRIDS)]
    configs = grid.configs(choice("profile", profile, grid.profiles), seeds)
    axes = grid.axes | grid.profiles[profile].get("axes", {})
    for config in configs:
        runner.check(config, axes)
    wanted: dict[str, list[str]] = {}
    for item in only:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"only must be key=value, got {item!r}")
        choice("only", key, sorted(set().union(*configs)))
        value = choice(f"only {key}", value, dict.fromkeys(str(c[key]) for c in configs if key in c))
        wanted.setdefault(key, []).append(value)
    kept = [c for c in configs if all(str(c.get(key)) in values for key, values in wanted.items())]
    if not kept:
        raise ValueError(f"only must leave a run, got {' '.join(only)}, which no run of {grid.name} has together")
    return grid, kept


def is_recorded(path: Path) -> bool:
    """Whether there is a whole, current record."""
    try:
        records.read(path)
    except (FileNotFoundError, records.RecordError):
        return False
    return True


def run(
    grid: str | Grid,
    *,
    profile: str = "short",
    seeds: int = 5,
    workers: int = 1,
    only: Iterable[str] = (),
    scheduler: str | None = None,
    runs: Path = records.RUNS,
) -> int:
    """Make every missing record of a grid; return how many were made.

    Each run is locked while it is made, so that several calls, of several processes, share a grid's work. Its state is
    kept after every epoch: whatever ends a run, the next call goes on from there. A damaged record or checkpoint is
    set aside, and the run made anew; a stale record is replaced. A record that another grid has of the same
    configuration is taken over. Where a configuration says `together`, the seeds of a block are one run. Under torchrun
    its processes make each run together.

    Args:
        grid: a name from `GRIDS`, or a Grid.
        profile: which of the grid's profiles.
        seeds: runs per combination, seeds 0 … seeds − 1, and what is left of the last block.
        workers: processes at a time, one thread each.
        only: conditions "key=value" on the configuration, see `select`.
        scheduler: address of a running Dask scheduler, whose workers are used instead.
        runs: folder of the records.

    Warns:
        RunWarning: a file was set aside, a worker died, or another process is making some of the runs.

    Raises:
        ValueError: unknown grid, profile or condition, seeds or workers below 1, a run that torchrun would change.
        OSError: a folder that cannot be written, a full disk, missing data, a cluster that is not there.
        ImportError: a scheduler without dask.distributed.
        WorkerError: workers die again and again, or the cluster goes away.
    """
    grid, configs = select(grid, profile, seeds, only)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    folder = Path(runs) / grid.name
    _set_aside_damaged(folder)
    _take_over(configs, folder)
    if torchrun.launched():
        for config in configs:
            torchrun.check(config)
        crew = torchrun.Group()
    elif all(is_recorded(record_path(folder, c)) for c in configs):
        return 0
    else:
        crew = Cluster(scheduler) if scheduler else Processes(workers)
    with ExitStack() as claims, crew:  # a lock is held until no worker is at its run any more
        if not crew.leads:
            return crew.follow()
        if not scheduler:  # one download, not one in each worker; a cluster's workers have disks of their own
            wanted = {c["dataset"] for c in configs if not is_recorded(record_path(folder, c))}
            for name in sorted(wanted - {"digits"}):
                datasets.fetch(name)
        return _Making(grid.name, folder, crew, claims).make(configs)


def _set_aside_damaged(folder: Path) -> None:
    """Rename what is no record, of whatever seed or profile: `summarize` would stop at it."""
    for path in folder.glob("*.json"):
        try:
            records.read(path)
        except records.StaleRecordError:
            pass
        except records.RecordError as error:
            _warn(f"{error}; set aside as {records.set_aside(path).name}")
        except FileNotFoundError:  # set aside by another process
            pass


def record_path(folder: Path, config: dict) -> Path:
    """Where the record of a configuration is, or will be."""
    return folder / f"{records.config_id(config)}.json"


def _take_over(configs: list[dict], folder: Path) -> None:
    """Copy what other grids have recorded of the same configurations."""
    for config in configs:
        path = record_path(folder, config)
        if other := _elsewhere(path):
            records.write(records.read(other) | {"grid": folder.name}, folder.parent)


def _elsewhere(path: Path) -> Path | None:
    """A whole, current record that another grid has of the same configuration, where this one has none at all."""
    others = () if path.exists() else sorted(path.parent.parent.glob(f"*/{path.name}"))
    return next(filter(is_recorded, others), None)


def missing(configs: list[dict], folder: Path) -> list[dict]:
    """The configurations that `run` has to train: those not recorded here, nor elsewhere to be taken over."""
    places = [(config, record_path(folder, config)) for config in configs]
    return [config for config, path in places if not is_recorded(path) and not _elsewhere(path)]


def trainings(configs: list[dict]) -> list[dict]:
    """The configurations that stand for a run each: the first of every block of seeds trained together."""
    firsts = [runner.members(config)[0] for config in configs]
    return list({records.config_id(first): first for first in firsts}.values())


@dataclass
class _Job:
    config: dict
    missing: list[dict]  # of the configurations trained together, those that lack a record
    record: Path
    checkpoint: Path
    label: str
    claim: ExitStack  # its lock and its bar
    bar: tqdm
    epoch: int = 0


class _Making:
    """The making of the missing records among some configurations."""

    def __init__(self, grid: str, folder: Path, crew, claims: ExitStack):
        self.grid, self.folder, self.crew, self.claims = grid, folder, crew, claims
        self.running: dict[Future, _Job] = {}
        self.made = self.elsewhere = self.deaths = 0

    def make(self, configs: list[dict]) -> int:
        waiting = deque(trainings([c for c in configs if not is_recorded(record_path(self.folder, c))]))
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self.folder.glob(".*.part"):
            with suppress(FileNotFoundError):  # swept by another process
                if time.time() - part.stat().st_mtime > _OLD:
                    part.unlink()
        with progress(total=sum(c["epochs"] for c in waiting), desc=self.grid, unit="epoch") as self.bar:
            while waiting or self.running:
                while waiting and len(self.running) < self.crew.slots:
                    job = self._claim(waiting.popleft())
                    if job:
                        self._start(job)
                if self.running:
                    self._collect()
        if self.elsewhere:
            _warn(f"{self.elsewhere} run(s) of {self.grid} are being made by another process")
        return self.made

    def _claim(self, config: dict) -> _Job | None:
        """Lock a run and clear its place; None if another process is making it, or has made it since we looked."""
        path = record_path(self.folder, config)
        lock = locks.acquire(path.with_name(f".{path.stem}.lock"))
        if lock is None:
            self.elsewhere += 1
            return None
        claim = self.claims.enter_context(ExitStack())
        claim.callback(lock.release)
        missing = [c for c in runner.members(config) if self._is_missing(record_path(self.folder, c))]
        if not missing:
            claim.close()
            self.bar.update(config["epochs"])
            return None
        label = " ".join(str(config[k]) for k in ("method", "m", "seed") if k in config)
        bar = claim.enter_context(progress(total=config["epochs"], desc=label, unit="epoch"))
        checkpoint = path.with_name(f".{path.stem}-{records.RESULTS_VERSION}.ckpt")
        return _Job(config, missing, path, checkpoint, label, claim, bar)

    def _is_missing(self, path: Path) -> bool:
        """Whether there is no record to keep; what is damaged is set aside."""
        try:
            records.read(path)
        except FileNotFoundError:
            return True
        except records.StaleRecordError as error:
            _warn(str(error))
            return True
        except records.RecordError as error:
            _warn(f"{error}; set aside as {records.set_aside(path).name}, made anew")
            return True
        return False

    def _start(self, job: _Job) -> None:
        with _named(job):
            self.running[self.crew.submit(self.grid, job.config, job.checkpoint)] = job

    def _advance(self, job: _Job, epoch: int) -> None:
        if epoch > job.epoch:
            self.bar.update(epoch - job.epoch)
            job.bar.update(epoch - job.epoch)
            job.epoch = epoch

    def _collect(self) -> None:
        """Wait a moment for runs to end; keep their records, and start anew what was lost."""
        done, _ = wait(self.running, timeout=0.3, return_when=FIRST_COMPLETED)
        found = self.crew.epochs()
        for job in self.running.values():
            self._advance(job, found.get(job.record.stem, 0))
        if found:
            self.deaths = 0
        lost = []
        for future in done:
            job = self.running.pop(future)
            try:
                with _named(job):
                    made = future.result()
            except CheckpointError as error:
                _warn(f"{error}; set aside as {records.set_aside(job.checkpoint).name}, trained anew")
                self._start(job)
            except self.crew.died:
                lost.append(job)
            except CancelledError as error:
                raise WorkerError("the cluster went away; the same command goes on") from error
            else:
                for record in made:
                    if record["config"] in job.missing:
                        records.write(record, self.folder.parent)
                        self.made += 1
                checkpoints.remove(job.checkpoint)  # nobody writes it any more: the run is over, its lock held
                self._advance(job, job.config["epochs"])
                job.claim.close()
                self.deaths = 0
        if lost:
            self.deaths += 1
            names = ", ".join(job.label for job in lost)
            if self.deaths == _TRIES:
                raise WorkerError(f"workers died {_TRIES} times without finishing an epoch, at {names}; out of memory?")
            _warn(f"a worker died; what it was at goes on from its last epoch: {names}")
            for job in lost:
                self._start(job)


@contextmanager
def _named(job: _Job):
    """Note in an error which run it is of."""
    try:
        yield
    except Exception as error:
        # what add_note does, from Python 3.11 on
        error.__notes__ = [*getattr(error, "__notes__", ()), f"in run {job.label} ({job.record.name})"]
        raise


def _warn(text: str) -> None:
    warnings.warn(text, RunWarning, stacklevel=2)
