"""One run on the processes that `torchrun` started: each takes its share of every batch (see `training.train`).

torchrun --nproc-per-node 2 -m normlib.cli run gn-batch-size --profile full
"""

import os
from concurrent.futures import Future
from pathlib import Path

import torch
from torch import distributed

from ..checkpoints import CheckpointError
from . import runner
from .grids import _PER_SAMPLE


def launched() -> bool:
    """Whether this is one of several processes of torchrun."""
    return distributed.is_available() and distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def check(config: dict) -> None:
    """Refuse a run that so many processes would make with other statistics than one process does.

    Raises:
        ValueError: a layer whose running statistics enter training, since they are averaged over the processes only
            after an epoch; a layer's m, the virtual batch size, does not divide a process's share of the batch.
    """
    processes = int(os.environ["WORLD_SIZE"])
    m = config.get("virtual_batch_size", config["batch_size"])
    norm = config["norm"].removesuffix("+ws")
    if norm in ("brn", "mbn") or (norm == "bcn" and config.get("norm_options", {}).get("estimate")):
        raise ValueError(
            "norm must be a layer that trains without running statistics (neither brn, mbn nor bcn with estimate), "
            f"since each of {processes} processes would have its own, got {config['norm']!r}; "
            "run this one without torchrun"
        )
    if norm in _PER_SAMPLE:
        m = 1
    if config["batch_size"] % (processes * m):
        raise ValueError(
            f"batch_size must be a multiple of {processes} processes × {m} samples of a layer's statistics, "
            f"got {config['batch_size']} ({config['norm']}); run this one without torchrun"
        )


class Group:
    """All processes of torchrun as one worker. Process 0 asks for runs; the others follow it until it leaves."""

    slots, died = 1, ()

    def __enter__(self):
        cuda = runner.device().startswith("cuda")
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.set_num_threads(1)
        distributed.init_process_group("nccl" if cuda else "gloo")
        if not self.leads:
            os.environ["NORMLIB_PROGRESS"] = "0"  # one bar is enough
        return self

    @property
    def leads(self) -> bool:
        """Whether this is process 0, which keeps the records."""
        return distributed.get_rank() == 0

    def __exit__(self, kind, error, trace) -> None:
        if kind is None and self.leads:
            distributed.broadcast_object_list([None])
        distributed.destroy_process_group()  # after an error the others fail, too, and torchrun ends them

    def submit(self, grid: str, config: dict, checkpoint: Path) -> Future:
        """Process 0: train one run, all processes together; a future that is done."""
        distributed.broadcast_object_list([(grid, config, checkpoint)])
        future = Future()
        try:
            future.set_result(runner.execute(grid, config, checkpoint))
        except CheckpointError as error:
            distributed.barrier()  # the file stays where it is until all have read it
            future.set_exception(error)
        return future

    def follow(self) -> int:
        """Every other process: take part in the runs that process 0 asks for; how many."""
        done = 0
        while True:
            asked = [None]
            distributed.broadcast_object_list(asked)
            if asked[0] is None:
                return done
            try:
                runner.execute(*asked[0])
                done += 1
            except CheckpointError:  # process 0 meets it as well, sets the file aside and asks again
                distributed.barrier()

    def epochs(self) -> dict[str, int]:
        """Nothing: `train` draws the bar itself, in process 0's terminal."""
        return {}
