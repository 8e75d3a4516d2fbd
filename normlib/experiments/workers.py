"""Worker processes on this machine, of one thread each, that end when the process that started them does."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path

from ..parallel import start_worker
from . import records, runner

_epochs: Connection | None = None  # in a worker: where finished epochs are reported


def _start(alive: Connection, epochs: Connection) -> None:
    """Initialize a worker."""
    global _epochs
    _epochs = epochs
    start_worker(alive)


def _work(grid: str, config: dict, checkpoint: Path) -> list[dict]:
    name = records.config_id(config)

    def on_epoch(epoch: int) -> None:
        _epochs.send_bytes(
            f"{name} {epoch}".encode()
        )  # shorter than PIPE_BUF: workers need no lock, which could be lost

    return runner.execute(grid, config, checkpoint, on_epoch=on_epoch)


class Processes:
    """A pool of `count` processes that make runs by `work`; it is built anew when one of them has died."""

    died = (BrokenProcessPool,)
    leads = True

    def __init__(self, count: int, work: Callable = _work):
        self.slots, self._work = count, work
        self._pool = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.stop()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        watched, self._alive = context.Pipe(duplex=False)
        self._reports, report = context.Pipe(duplex=False)
        self._ends = watched, report  # for workers that the pool starts later
        self._pool = ProcessPoolExecutor(self.slots, mp_context=context, initializer=_start, initargs=(watched, report))

    def stop(self) -> None:
        """End the workers at once, whatever they do."""
        if self._pool is None:
            return
        self._alive.close()
        self._pool.shutdown(cancel_futures=True)
        for end in (self._reports, *self._ends):
            end.close()
        self._pool = None

    def submit(self, grid: str, config: dict, checkpoint: Path | None) -> Future:
        """A future of the records of one run."""
        if self._pool is None:
            self._open()
        try:
            return self._pool.submit(self._work, grid, config, checkpoint)
        except BrokenProcessPool:
            self.stop()
            self._open()
            return self._pool.submit(self._work, grid, config, checkpoint)

    def epochs(self) -> dict[str, int]:
        """Finished epochs by the run's id, of the runs that reported since the last call."""
        found = {}
        while self._pool is not None and self._reports.poll():
            name, epoch = self._reports.recv_bytes().decode().split()
            found[name] = int(epoch)
        return found
