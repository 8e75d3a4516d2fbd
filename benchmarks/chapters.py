"""Each chapter run alone, and how fast the machine was while it ran.

The budgets are for two cores, each of which trains `SPEED` images a second in the loop below. A shared machine may be
several times slower, and not the same from one second to the next: the chapter is stopped every few seconds for a short
look at the machine, and what is compared with a budget is its time, each part of it times the machine's share of that
speed.
"""

import os
import statistics
import threading
import time

import psutil
import torch
import torch.nn.functional as F
from nbclient import NotebookClient
from torch import nn

from tools import execute, notebooks

from .pairs import Row, one_thread

SPEED = 1100  # images/s: three blocks of two convolutions of width 16, 32×32 images, batch 8, channels-last, one thread
CHAPTER, BOOK = 40.0, 300.0  # s
EVERY, LOOK = 2.0, 0.2  # s


def rows() -> list[Row]:
    os.environ.update(notebooks.ENVIRONMENT)
    out, total = [], 0.0
    with one_thread():
        speed = _speed()
        for path in execute.chapters():
            seconds, shares = _run(path, speed)
            share = statistics.mean(shares)
            total += seconds * share
            name = f"running time of {path.stem}"
            out.append(Row(f"{name}, alone", seconds, unit="s"))
            half = 2 * statistics.stdev(shares) / len(shares) ** 0.5  # two standard errors
            low, high = (seconds * (share + sign * half) for sign in (-1, 1))
            out.append(Row(f"{name}, at the budgets' speed", seconds * share, CHAPTER, "s", low, high))
            print(f"{path.stem}: {seconds:.0f} s at {share:.2f} of the budgets' speed", flush=True)
    return [*out, Row("running time of all chapters one by one, at the budgets' speed", total, BOOK, "s")]


def _run(path, speed) -> tuple[float, list[float]]:
    """Seconds that a notebook takes, pauses not counted, and the shares of the budgets' speed seen in these."""
    shares, paused, over = [speed() / SPEED], 0.0, threading.Event()

    def look(kernel: psutil.Process) -> None:
        nonlocal paused
        while not over.wait(EVERY):
            start = time.perf_counter()
            try:
                kernel.suspend()
                try:
                    shares.append(speed() / SPEED)
                finally:
                    kernel.resume()
            except psutil.NoSuchProcess:  # the notebook has just ended
                return
            paused += time.perf_counter() - start

    def started(**_) -> None:
        thread.start()

    client = NotebookClient(
        notebooks.read(path),
        timeout=notebooks.TIMEOUT * 10,
        resources={"metadata": {"path": str(path.parent)}},
        on_notebook_start=started,
    )
    thread = threading.Thread(target=lambda: look(psutil.Process(client.km.provisioner.pid)))
    start = time.perf_counter()
    try:
        client.execute()
    finally:
        over.set()
        if thread.ident:
            thread.join()
    return time.perf_counter() - start - paused, shares


def _speed():
    """A function that trains for `LOOK` seconds and gives the images per second."""
    torch.manual_seed(0)
    blocks, channels = [], 3
    for _ in range(3):
        for _ in range(2):
            blocks += [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU()]
            channels = 16
        blocks.append(nn.MaxPool2d(2))
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(16 * 16, 10)).to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.arange(8)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

    def measure() -> float:
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < LOOK:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            images += len(x)
        return images / (time.perf_counter() - start)

    measure()  # warms up
    return measure
