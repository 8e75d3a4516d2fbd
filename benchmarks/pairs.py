"""Rows of the table, and the one way in which two running times are compared."""

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch


class Skipped(Exception):  # noqa: N818  (no error: the table says why)
    """A part that cannot be measured here; the message says what it lacks."""


@dataclass
class Row:
    """One line of the table: `measured` against `goal` (an upper limit; None: shown for orientation)."""

    what: str
    measured: float
    goal: float | None = None
    unit: str = "×"
    low: float | None = None  # 5 % and 95 % of the blocks, or the extremes of fewer than 20
    high: float | None = None

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.measured <= self.goal


@contextmanager
def one_thread():
    """torch on one thread, with memory that stays with the process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # glibc gives large blocks back to the system at once, until a block of up to 32 MB has been freed; from then on
    # it keeps memory of that size. Without this, page faults would be measured instead of layers.
    block = torch.empty(31 << 18)
    del block
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def ratio(what: str, ours: Callable, theirs: Callable, goal: float | None = None, *, blocks=25, seconds=0.4) -> Row:
    """Time of `ours` over time of `theirs`: the median over paired blocks, with the range from 5 % to 95 %.

    Of fewer than 20 blocks the range is that of all. Each block times one after the other, in turns of order, so that a
    change of the machine's load or clock meets both. `seconds` is about what all blocks of one side take.
    """
    calls = max(1, round(seconds / blocks / _seconds(theirs, 3)))
    _seconds(ours, 3)
    ratios = []
    gc.collect()
    gc.disable()
    try:
        for block in range(blocks):
            if block % 2:
                mine, other = _seconds(ours, calls), _seconds(theirs, calls)
            else:
                other, mine = _seconds(theirs, calls), _seconds(ours, calls)
            ratios.append(mine / other)
    finally:
        gc.enable()
    ratios.sort()
    edge = blocks // 20
    return Row(what, statistics.median(ratios), goal, low=ratios[edge], high=ratios[-1 - edge])


def _seconds(function: Callable, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls
