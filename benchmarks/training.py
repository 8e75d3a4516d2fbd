"""Many seeds trained together against one."""

import os
from functools import partial

import torch

from normlib import datasets
from normlib.layers import BatchNorm
from normlib.models import MLP
from normlib.training import train

from .pairs import Row, ratio

SEEDS = 10
GOAL = 3.0


def rows() -> list[Row]:
    os.environ["NORMLIB_PROGRESS"] = "0"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    m = 4
    run = partial(
        train,
        partial(MLP, 64, norm_layer=BatchNorm),
        datasets.digits(),
        epochs=1,
        batch_size=m,
        learning_rate=0.2 * m / 64,
    )
    try:
        what = f"{SEEDS} seeds of the MLP together / one seed, digits, m = {m}"
        many, one = partial(run, seeds=range(SEEDS), together=True), partial(run, seeds=[0])
        return [ratio(what, many, one, GOAL, blocks=9, seconds=0)]
    finally:
        torch.set_num_threads(threads)
