"""Each chapter run alone, and how fast the machine was then.

A shared machine may be several times slower, and not the same from one minute to the next. So a chapter that misses its
budget runs again, and the quickest of its runs is the least disturbed; the range shows all. Beside the seconds stands
how many images one core trains per second in the loop below, by looks before, between and after the chapters.
"""

import os
import time

import torch
import torch.nn.functional as F
from nbclient import NotebookClient
from torch import nn

from tools import execute, notebooks

from .pairs import Row, one_thread

CHAPTER = 40.0  # s
RUNS = 3  # of a chapter that misses it
LOOK = 1.0  # s


def rows() -> list[Row]:
    os.environ.update(notebooks.ENVIRONMENT)
    out, speeds = [], []
    with one_thread():
        speed = _speed()
        for path in execute.chapters():
            seconds = []
            while not seconds or (min(seconds) > CHAPTER and len(seconds) < RUNS):
                speeds.append(speed())
                seconds.append(_run(path))
                print(
                    f"{path.stem}: {seconds[-1]:.0f} s; before it one core trained {speeds[-1]:.0f} images/s",
                    flush=True,
                )
            several = {"low": min(seconds), "high": max(seconds)} if len(seconds) > 1 else {}
            out.append(Row(f"running time of {path.stem}, alone", min(seconds), CHAPTER, "s", **several))
        speeds.append(speed())
    total = Row("running time of all chapters, one by one", sum(row.measured for row in out), unit="s")
    machine = sorted(speeds)[len(speeds) // 2]
    name = "images/s of one core between the chapters, three blocks of width 16, batch 8"
    return [*out, total, Row(name, machine, unit="", low=min(speeds), high=max(speeds))]


def _run(path) -> float:
    """Seconds from a kernel's start to the end of its last cell; its shutdown, polled once a second, is left out."""
    notebook = notebooks.read(path)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=notebooks.TIMEOUT * 10, resources=resources)
    start = time.perf_counter()
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        return time.perf_counter() - start


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
