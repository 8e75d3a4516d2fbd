"""Several trainings of a chapter at a time: one process a core, each a copy of the one that asks."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import torch
from torch import nn
from tqdm import tqdm

from .training import progress

Name = TypeVar("Name")
Result = TypeVar("Result")

_MOST = 8  # copies, on however many cores: few chapters have more jobs, and a container may lend fewer than it shows


def in_parallel(jobs: Mapping[Name, Callable[[], Result]], processes: int | None = None) -> dict[Name, Result]:
    """Call every job and return what each returned under its name, in the order of the jobs.

    Jobs run in copies of this process, one a core, and so may use whatever is defined here, a notebook's functions and
    data included, without sending it. A job must change nothing outside itself, since in a copy the change is lost; it
    must not raise the number of threads, one in a copy; and what it returns must be something that pickle can send: no
    lambda, also within a model. (Tensors that share memory arrive apart, unless they are one object.) Whatever ran
    before it, a job finds torch's random state of the CPU as it is here.

    Where a process cannot safely be copied (on macOS and Windows, where autograd has threads of a GPU, in a daemonic
    process), where there is one core or one job, jobs are called here, one after another. Results are the same, but for
    last digits where this process has several threads.

    Args:
        jobs: functions without arguments, by name.
        processes: at most so many at a time; None: the cores that this process may use, at most 8.

    Raises:
        ValueError: processes below 1.
        RuntimeError: a job's process died, or what a job returned cannot be sent; the message has its name.
        Exception: what a job raised, from an error with its name and traceback (a RuntimeError that says so where the
            exception itself cannot be sent). No other job goes on.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1 or None, got {processes}")
    count = min(len(jobs), processes or min(_cores(), _MOST))
    found = {}
    with progress(total=len(jobs), desc="trainings") as bar:
        for name, result in _copies(jobs, count) if count > 1 and _can_copy() else _here(jobs):
            found[name] = result
            bar.update()
    return {name: found[name] for name in jobs}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _can_copy() -> bool:
    """Whether a copy of this process can be made, and can train: it lacks the threads that autograd has for GPUs."""
    child = multiprocessing.current_process().daemon  # has no children of its own
    return sys.platform == "linux" and not child and not torch.accelerator.is_available()


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
    waiting, workers, filters = list(jobs), {}, warnings.filters[:]
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(jobs, theirs, [*workers, ours], filters), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: threads are not copied
                process.start()
            theirs.close()
            workers[ours] = process
        names = {}  # by connection, of the jobs at work
        for connection in workers:
            names[connection] = _ask(connection, waiting)
        while names:
            # not for ever: a Ctrl-C just before the wait begins is noticed only when it ends
            for connection in wait(list(names), timeout=1):
                name = names.pop(connection)
                yield name, _answer(name, workers[connection], connection)
                if waiting:
                    names[connection] = _ask(connection, waiting)
    finally:
        for process in workers.values():
            process.kill()  # a gentler signal may have a handler, copied as well
        for connection, process in workers.items():
            connection.close()
            process.join()


def _ask(connection: Connection, waiting: list):
    connection.send(len(waiting))  # counted from the end: a name need not be something that can be sent
    return waiting.pop(0)


def _work(jobs, connection: Connection, others: list[Connection], filters: list) -> None:
    """What a copy does. It stays for several jobs, so that what they import is imported once."""
    for other in others:  # ends of the parent's: while a copy has them, the parent cannot notice another's death
        other.close()
    start_worker(multiprocessing.parent_process().sentinel)
    warnings.filters[:] = filters
    todo = list(jobs.values())
    while True:
        job = todo[-connection.recv()]
        try:
            answer = _alone(job), None, ""
        except Exception as error:  # noqa: BLE001  (raised again by the parent)
            answer = None, _sendable(error), traceback.format_exc()
        buffer = BytesIO()
        try:
            _Pickler(buffer).dump(answer)
        except Exception as reason:  # noqa: BLE001  (whatever its parts raise when they are to be sent)
            buffer = BytesIO()
            _Pickler(buffer).dump((None, None, str(reason) or type(reason).__name__))
        connection.send_bytes(buffer.getvalue())


class _Pickler(pickle.Pickler):
    """pickle, but a tensor is its bytes: torch makes an archive of each, of which ten models have hundreds."""

    def reducer_override(self, value):
        kind = type(value)
        if kind not in (torch.Tensor, nn.Parameter) or not _is_bytes(value):
            return NotImplemented
        learns, value = value.requires_grad, value.detach()
        if _span(value) > value.numel():  # a part of something else
            value = value.clone()
        values = value.as_strided((_span(value),), (1,)).view(torch.uint8).numpy()
        return _tensor, (kind, values, value.dtype, value.shape, value.stride(), learns)


def _is_bytes(value: torch.Tensor) -> bool:
    """Whether there is no more to it than values in this process's memory, as they are."""
    if value.device.type != "cpu" or value.layout is not torch.strided or vars(value):
        return False
    return not (value.is_nested or value.is_quantized or value.is_conj() or value.is_neg())


def _span(value: torch.Tensor) -> int:
    """How many values lie in memory from the first to the last."""
    steps = zip(value.shape, value.stride(), strict=True)
    return 1 + sum((n - 1) * step for n, step in steps) if value.numel() else 0


def _tensor(kind, values, dtype, size, stride, learns):
    tensor = torch.from_numpy(values).view(dtype).as_strided(size, stride)
    return nn.Parameter(tensor, learns) if kind is nn.Parameter else tensor.requires_grad_(learns)


def start_worker(alive: Connection | int) -> None:
    """What a process that trains for another does first: one thread, no bars, and an end when `alive` is readable.

    alive: of the parent's, which never sends anything there, so that its closing, if only by the parent's death, ends
        the worker at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent as well, which ends its workers
    os.environ["NORMLIB_PROGRESS"] = "0"  # the parent draws the bars
    tqdm.set_lock(threading.RLock())  # its own is a semaphore between processes, which a killed worker would leave
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()


def _end_with(alive: Connection | int) -> None:
    wait([alive])
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error itself, or one that says the same where it does not survive being sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (whatever its class's methods raise)
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _answer(name, process, connection: Connection):
    try:
        sent = connection.recv_bytes()
    except (EOFError, OSError):  # the second in the middle of an answer
        process.join()
        raise RuntimeError(f"the process of {name!r} died (exit code {process.exitcode})") from None
    result, error, text = pickle.loads(sent)
    if error is not None:
        raise error from RuntimeError(f"{name!r} failed in a process of its own:\n{text}")
    if text:
        raise RuntimeError(
            f"what {name!r} returned cannot be sent from one process to another ({text}): use named functions"
        )
    return result
