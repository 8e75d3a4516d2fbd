"""Several trainings of a chapter at a time: one process a core, each a copy of the one that asks."""

import multiprocessing
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import torch

from .training import progress

Name = TypeVar("Name")
Result = TypeVar("Result")


def in_parallel(jobs: Mapping[Name, Callable[[], Result]], processes: int | None = None) -> dict[Name, Result]:
    """Call every job and return what each returned under its name, in the order of the jobs.

    Jobs run in copies of this process, one a core, and so may use whatever is defined here, a notebook's functions and
    data included, without sending it. What a job changes stays in its copy; what it returns must be something that
    pickle can send: no lambda, also within a model. Each copy has one thread.

    Where a process cannot safely be copied (on macOS and Windows, and where autograd has threads of a GPU), where there
    is one core or one job, jobs are called here, one after another. Either way every job finds torch's random state as
    it is before the call, and leaves it so.

    Args:
        jobs: functions without arguments, by name.
        processes: at most so many at a time; None: the cores that this process may use.

    Raises:
        ValueError: processes below 1.
        RuntimeError: a job's process died, or what it returned cannot be sent; the name is in the message.
        Exception: what a job raised, from an error with the text of its traceback. No other job goes on.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1 or None, got {processes}")
    count = min(len(jobs), processes or _cores())
    found = {}
    with progress(total=len(jobs), desc="trainings") as bar:
        for name, result in _copies(jobs, count) if count > 1 and _can_copy() else _here(jobs):
            found[name] = result
            bar.update()
    return {name: found[name] for name in jobs}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _can_copy() -> bool:
    """Whether a copy of this process can train: autograd starts threads for GPUs, which a copy would lack."""
    return sys.platform == "linux" and not torch.accelerator.is_available()


def _here(jobs):
    for name, job in jobs.items():
        yield name, _alone(job)


def _alone(job):
    """What a job returns, whatever ran before it."""
    with torch.random.fork_rng(devices=[]):
        return job()


def _copies(jobs, count: int):
    """Names and results, as they come."""
    context = multiprocessing.get_context("fork")
    waiting, workers = list(jobs), {}
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(jobs, theirs, [*workers, ours]), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: threads are not copied
                process.start()
            theirs.close()
            workers[ours] = process
        names = {}  # by connection, of the jobs at work
        for connection in workers:
            names[connection] = _ask(connection, waiting)
        while names:
            for connection in wait(list(names)):
                name = names.pop(connection)
                yield name, _answer(name, workers[connection], connection)
                if waiting:
                    names[connection] = _ask(connection, waiting)
    finally:
        for connection, process in workers.items():
            connection.close()
            process.terminate()
            process.join()


def _ask(connection: Connection, waiting: list):
    connection.send(len(waiting))  # counted from the end: a name need not be something that can be sent
    return waiting.pop(0)


def _work(jobs, connection: Connection, others: list[Connection]) -> None:
    """What a copy does, job after job: what it has once imported, it has."""
    for other in others:  # ends of the parent's, whose death would not be noticed here, nor a copy's by the parent
        other.close()
    os.environ["NORMLIB_PROGRESS"] = "0"  # the bar is the parent's
    torch.set_num_threads(1)
    todo = list(jobs.values())
    while True:
        try:
            job = todo[-connection.recv()]
        except EOFError:
            return
        try:
            answer = _alone(job), None, ""
        except Exception as error:  # noqa: BLE001  (raised again by the parent)
            answer = None, error, traceback.format_exc()
        buffer = BytesIO()
        try:
            torch.save(answer, buffer)  # hundreds of small tensors at once; one by one, each would take a file handle
        except (pickle.PicklingError, AttributeError, TypeError) as reason:
            buffer = BytesIO()
            error = RuntimeError(f"cannot be sent from one process to another ({reason}): use named functions")
            torch.save((None, error, answer[2]), buffer)
        connection.send_bytes(buffer.getvalue())


def _answer(name, process, connection: Connection):
    try:
        sent = connection.recv_bytes()
    except (EOFError, ConnectionResetError):
        process.join()
        raise RuntimeError(f"the process of {name!r} died (exit code {process.exitcode})") from None
    result, error, trace = torch.load(BytesIO(sent), weights_only=False)  # from our own copy
    if error is not None:
        raise error from RuntimeError(f"{name!r} failed in a process of its own:\n{trace}")
    return result
