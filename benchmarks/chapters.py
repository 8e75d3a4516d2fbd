"""Each chapter run alone, between two looks at how fast the machine is at that moment.

The budgets are for two cores, each of which trains `SPEED` images a second in the loop below. A shared machine may be
several times slower, and not the same from one minute to the next: what is compared with a budget is the running time
times the machine's share of that speed.
"""

import os
import statistics
import time

import torch
import torch.nn.functional as F
from jupyter_cache.executors.utils import single_nb_execution
from torch import nn

from tools import execute, notebooks

from .pairs import Row, one_thread

SPEED = 1100  # images/s: three blocks of two convolutions of width 16, 32×32 images, batch 8, channels-last, one thread
CHAPTER, BOOK = 40.0, 300.0  # s
SHARES, SHARE = 15, 0.2  # s


def rows() -> list[Row]:
    os.environ.update(notebooks.ENVIRONMENT)
    out, total = [], 0.0
    for path in execute.chapters():
        before = speed()
        result = single_nb_execution(notebooks.read(path), str(path.parent), notebooks.TIMEOUT * 10, False)
        if result.err:
            raise result.err
        shares = sorted(images / SPEED for images in (before, speed()))  # of the budgets' speed
        scaled = result.time * statistics.mean(shares)
        total += scaled
        name = f"running time of {path.stem}"
        out.append(Row(f"{name}, alone", result.time, unit="s"))
        spread = (result.time * share for share in shares)
        out.append(Row(f"{name}, at the budgets' speed", scaled, CHAPTER, "s", *spread))
    return [*out, Row("running time of all chapters one by one, at the budgets' speed", total, BOOK, "s")]


def speed() -> float:
    """Images per second of one thread, the median of `SHARES` times `SHARE` seconds."""
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
    rates = []
    with one_thread():
        for _ in range(SHARES + 1):  # the first warms up
            start, images = time.perf_counter(), 0
            while time.perf_counter() - start < SHARE:
                optimizer.zero_grad()
                F.cross_entropy(net(x), y).backward()
                optimizer.step()
                images += len(x)
            rates.append(images / (time.perf_counter() - start))
    return statistics.median(rates[1:])
