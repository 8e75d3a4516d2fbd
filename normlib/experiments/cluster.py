"""The same runs on a running Dask cluster: the workers train, the process that asked keeps the records."""

import asyncio
import os
import threading
from concurrent.futures import Future
from pathlib import Path

import torch

from . import records, runner

PATIENCE = 10  # seconds until a cluster that does not answer, or has no worker, is given up
_TOPIC = "normlib-epochs"
_ONE = threading.Lock()  # a seed fixes the generator of the whole process: one run at a time in each


class _UnwantedError(Exception):
    """Nobody waits for this run any more."""


def _work(grid: str, config: dict, checkpoint: Path) -> list[dict]:
    from distributed import get_worker

    worker = get_worker()
    key, name = worker.get_current_task(), records.config_id(config)

    def on_epoch(epoch: int) -> None:
        task = worker.state.tasks.get(key)
        # the process that asked has ended, or the scheduler
        if task is None or task.state == "cancelled" or worker.status.name in ("closing", "closed", "failed"):
            raise _UnwantedError(name)
        worker.log_event(_TOPIC, {"run": name, "epoch": epoch})

    with _ONE:
        torch.set_num_threads(1)
        # Where the folder of records is shared, a run whose worker dies goes on elsewhere from its last epoch.
        shared = checkpoint if os.access(checkpoint.parent, os.W_OK) else None
        return runner.execute(grid, config, shared, on_epoch=on_epoch)


class Cluster:
    """The workers of the Dask scheduler at `address`.

    Raises:
        ImportError: dask.distributed is not installed.
        OSError: nothing answers at the address, or there is no worker.
    """

    leads = True

    def __init__(self, address: str):
        try:
            from distributed import Client, KilledWorker
        except ImportError as error:
            raise ImportError(
                f"a scheduler needs dask.distributed: pip install 'normlib[cluster]' ({error})"
            ) from error
        # Dask would find that out too, and then wait 20 s for itself
        if not (address.startswith("inproc://") or address.rpartition(":")[2].isdigit()):
            raise OSError(
                "scheduler must be the address of a running Dask scheduler, with its port, such as tcp://HOST:8786, "
                f"got {address!r}"
            )
        self.died = (KilledWorker,)  # after Dask itself has tried several workers
        try:
            self._client = Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise OSError(
                f"scheduler must be the address of a running Dask scheduler, got {address!r}: {error}"
            ) from error
        try:
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, asyncio.TimeoutError) as error:
            self._client.close()
            raise OSError(f"scheduler {address} has no worker; start some with: dask worker {address}") from error
        self._executor = self._client.get_executor(pure=False)
        self._found: dict[str, int] = {}
        self._client.subscribe_topic(_TOPIC, self._note)

    def _note(self, event) -> None:
        _, message = event
        self._found[message["run"]] = message["epoch"]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._client.close()  # the scheduler forgets what this client asked for

    @property
    def slots(self) -> int:
        """A run for each worker process, and one more that it need not wait for."""
        return 2 * max(1, len(self._client.nthreads()))

    def submit(self, grid: str, config: dict, checkpoint: Path) -> Future:
        """A future of the records of one run."""
        return self._executor.submit(_work, grid, config, checkpoint.resolve())

    def epochs(self) -> dict[str, int]:
        """Finished epochs by the run's id, of the runs that reported since the last call."""
        found, self._found = self._found, {}
        return found
