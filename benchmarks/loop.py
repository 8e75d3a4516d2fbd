"""Training of the three-block CNN at batch 8: a grid's two workers against the loop that most people write."""

import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from torch import nn

from normlib.datasets import Data, crop_flip
from normlib.layers import BatchNorm
from normlib.models import ThreeBlockCNN
from normlib.training import train

from .pairs import Row

BATCH, WIDTH, IMAGES, BLOCKS = 8, 16, 480, 5
GOAL = 1 / 3


def rows() -> list[Row]:
    pixels = torch.randint(256, (IMAGES, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(IMAGES) % 10
    cores = min(2, os.cpu_count())
    spawn = get_context("spawn")
    # the usual loop in a process of its own as well: its DataLoader forks, and this process has threads
    with (
        ProcessPoolExecutor(cores, spawn, initializer=_worker, initargs=(spawn.Barrier(cores),)) as pool,
        ProcessPoolExecutor(1, spawn) as script,
    ):

        def ours() -> float:
            return 1 / sum(pool.map(partial(_ours, pixels, labels), range(cores)))

        def usual() -> float:
            return script.submit(_usual, pixels.numpy(), labels.tolist()).result()

        ours(), usual()  # warm
        ratios = sorted(ours() / usual() for _ in range(BLOCKS))
    what = f"two workers / DataLoader with PIL, seconds per image, three-block CNN of width {WIDTH}, batch {BATCH}"
    return [Row(what, statistics.median(ratios), GOAL, low=ratios[0], high=ratios[-1])]


_together = None  # in a worker: where all of them wait for each other


def _worker(together) -> None:
    global _together
    _together = together
    os.environ["NORMLIB_PROGRESS"] = "0"
    torch.set_num_threads(1)


def _ours(pixels, labels, seed: int) -> float:
    """Images per second of one worker, while every other is at the same."""
    x = pixels.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
    data = Data("random", x, labels, x[:10], labels[:10], black=torch.full((3,), -2.0))
    _together.wait(60)  # also keeps one worker from taking two of the tasks
    history = train(
        partial(ThreeBlockCNN, WIDTH, norm_layer=BatchNorm),
        data,
        seeds=[seed],
        epochs=1,
        batch_size=BATCH,
        learning_rate=0.0125,
        momentum=0.9,
        augment=partial(crop_flip, black=data.black),
    )
    return IMAGES / history.epoch_seconds[0]


class _Images(torch.utils.data.Dataset):
    """As torchvision's CIFAR10 gives its images to a transform."""

    def __init__(self, pixels, labels, transform):
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[i])), self.labels[i]


def _usual(pixels, labels) -> float:
    """Seconds per image of a loop as in torch's own tutorials, on all cores."""
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )
    loader = torch.utils.data.DataLoader(
        _Images(pixels, labels, transform), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )
    model = ThreeBlockCNN(WIDTH, norm_layer=nn.BatchNorm2d)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0125, momentum=0.9)
    next(iter(loader))  # its workers are started
    start = time.perf_counter()
    correct = total_loss = 0
    for x, y in loader:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        correct += (logits.argmax(1) == y).sum().item()
    return (time.perf_counter() - start) / IMAGES
