"""One training loop for every model, normalization and batch size; many seeds at once where that pays.

`train` builds one model per seed, trains them by SGD and returns every curve. Seeds trained together share
one vectorised step (`torch.func.vmap` over stacked parameters and buffers): on small fully connected networks
ten seeds then cost about as much as three. Convolutional networks gain nothing from it on a CPU and are
trained one by one. Both ways give each seed the same initial weights and the same batches.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from tqdm.auto import tqdm

from .convert import set_epoch
from .datasets import Data

Sampler = Callable[[Tensor, int, torch.Generator], Iterable[Tensor]]


def shuffled(labels: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches of one epoch: a random order cut into full batches; a remainder is left out."""
    order = torch.randperm(len(labels), generator=generator)
    return iter(order[: len(order) // batch_size * batch_size].split(batch_size))


@dataclass
class History:
    """What `train` measured; every curve is a float64 tensor of shape (seeds, epochs), NaN once a seed diverged.

    train_loss is the mean cross-entropy in nats over the epoch's batches as they were trained on, train_accuracy
    the share in [0, 1] of their samples classified correctly, both in training mode; the test curves are taken
    in evaluation mode after the epoch. epoch_seconds (epochs,) is wall time, all seeds together, without evaluation.
    """

    seeds: list[int]
    train_loss: Tensor
    train_accuracy: Tensor
    test_loss: Tensor
    test_accuracy: Tensor
    epoch_seconds: list[float]
    diverged_at: dict[int, int] = field(default_factory=dict)  # seed → first step with a loss not finite
    models: list[nn.Module] = field(default_factory=list, repr=False)  # trained, one per seed, in evaluation mode


def train(
    build: Callable[[], nn.Module],
    data: Data,
    *,
    seeds: Sequence[int] = (0,),
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: Callable[[int, int], float] | None = None,
    sampler: Sampler = shuffled,
    together: bool | None = None,
    label: str = "",
) -> History:
    """Train `build()` once per seed by SGD on the cross-entropy and measure every epoch.

    Args:
        build: makes a model; called after torch's generator is seeded.
        data: images and labels; the device is theirs.
        seeds: one model each; a seed fixes the initial weights and the batches (and, one by one, dropout masks).
        epochs: passes over the training set, 1 or more.
        batch_size: samples per step; what is left of an epoch after the last full batch is not used.
        learning_rate: step size before `schedule`; the loss is the mean over the batch.
        momentum: heavy-ball momentum of SGD.
        weight_decay: L2 coefficient, on all parameters.
        schedule: (epoch counted from 1, epochs) → factor on the learning rate.
        sampler: (labels, batch_size, generator) → index batches of one epoch; `shuffled` by default.
        together: all seeds in one vectorised step, or one after the other; None: together where a CPU trains
            several seeds of a model without convolutions.
        label: shown by the progress bar.

    Modules with a method `set_epoch(epoch, epochs)` get it called before every epoch. A seed whose loss stops
    being finite is reported in `diverged_at`; its curves are NaN from that epoch on, and the others go on.

    Raises:
        ValueError: no seeds, epochs or batch_size below 1, or a batch larger than the training set.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 1 <= batch_size <= len(data.x_train):
        raise ValueError(f"batch_size must be between 1 and {len(data.x_train)} training images, got {batch_size}")
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(build().to(data.x_train.device))
    if together is None:
        convolutional = any(isinstance(m, nn.modules.conv._ConvNd) for m in models[0].modules())
        together = len(seeds) > 1 and not convolutional and data.x_train.is_cpu
    options = dict(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule or (lambda epoch, epochs: 1.0),
        sampler=sampler,
        label=label,
    )
    groups = [list(range(len(seeds)))] if together else [[i] for i in range(len(seeds))]
    parts = [_train_group([models[i] for i in g], [seeds[i] for i in g], data, **options) for g in groups]
    curves = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return History(
        seeds=list(seeds),
        **{name: torch.cat([getattr(p, name) for p in parts]) for name in curves},
        # a part whose seeds have all diverged stops early
        epoch_seconds=[sum(times) for times in zip_longest(*(p.epoch_seconds for p in parts), fillvalue=0.0)],
        diverged_at={seed: step for p in parts for seed, step in p.diverged_at.items()},
        models=[model for p in parts for model in p.models],
    )


def _single(model: nn.Module):
    """Parameters, training and evaluation pass of one model, with a leading dimension of 1; nothing to finish."""
    return list(model.parameters()), lambda x: model(x[0])[None], lambda x: model(x)[None], lambda: None


def _stacked(models: list[nn.Module]):
    """The same for many models as one: stacked parameters; `finish` writes them back into the models."""
    parameters, buffers = stack_module_state(models)
    base = models[0]

    def one(parameters, buffers, x):
        return functional_call(base, (parameters, buffers), (x,))

    each = torch.func.vmap(one, randomness="different")
    same = torch.func.vmap(one, in_dims=(0, 0, None), randomness="different")

    def finish() -> None:
        for i, model in enumerate(models):
            model.load_state_dict({name: value[i].detach() for name, value in (parameters | buffers).items()})

    leaves = list(parameters.values())
    return leaves, lambda x: each(parameters, buffers, x), lambda x: same(parameters, buffers, x), finish


def _train_group(
    models,
    seeds,
    data,
    *,
    epochs,
    batch_size,
    learning_rate,
    momentum,
    weight_decay,
    schedule,
    sampler,
    label,
):
    """Train models that share every step: stacked when there are several, plainly when there is one."""
    leaves, forward, evaluate, finish = _stacked(models) if len(models) > 1 else _single(models[0])
    base, device, S = models[0], data.x_train.device, len(models)
    optimizer = torch.optim.SGD(leaves, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    torch.manual_seed(seeds[0])  # dropout
    curves = {k: torch.full((S, epochs), math.nan, dtype=torch.float64) for k in _CURVES}
    seconds, diverged, step = [], {}, 0
    with progress(total=epochs, desc=label or type(base).__name__) as bar:
        for epoch in range(1, epochs + 1):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * schedule(epoch, epochs)
            set_epoch(base, epoch, epochs)
            base.train()
            start = time.perf_counter()
            losses, hits = [], []
            for batches in zip(*(sampler(data.y_train, batch_size, g) for g in generators), strict=True):
                index = torch.stack(batches).to(device)
                x, y = data.x_train[index], data.y_train[index]
                logits = forward(x)
                loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
                loss = loss.view(S, -1).mean(1)
                # not backward(): accumulating would copy every transposed gradient once more
                gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
                for leaf, gradient in zip(leaves, gradients, strict=True):
                    leaf.grad = gradient
                optimizer.step()
                losses.append(loss.detach())
                hits.append((logits.detach().argmax(-1) == y).float().mean(1))
            losses, hits = torch.stack(losses, 1).double().cpu(), torch.stack(hits, 1).double().cpu()
            seconds.append(time.perf_counter() - start)
            for s, seed in enumerate(seeds):
                bad = (~losses[s].isfinite()).nonzero()
                if len(bad) and seed not in diverged:
                    diverged[seed] = step + int(bad[0])
            step += losses.shape[1]
            test_loss, test_accuracy = _evaluate(base, evaluate, data)
            for seed, loss in zip(seeds, test_loss, strict=True):
                if not loss.isfinite():  # broken by the epoch's last step
                    diverged.setdefault(seed, step)
            alive = torch.tensor([seed not in diverged for seed in seeds])
            measured = (losses.mean(1), hits.mean(1), test_loss, test_accuracy)
            for name, value in zip(_CURVES, measured, strict=True):
                curves[name][alive, epoch - 1] = value[alive]
            bar.update()
            bar.set_postfix_str(f"test accuracy {curves['test_accuracy'][:, epoch - 1].nanmean():.3f}")
            if not alive.any():
                break
    finish()
    for model in models:
        model.eval()
    return History(list(seeds), **curves, epoch_seconds=seconds, diverged_at=diverged, models=models)


_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


@torch.no_grad()
def _evaluate(base: nn.Module, forward, data: Data, batch: int = 1000) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy on the test set, per seed, in evaluation mode."""
    base.eval()
    loss = hits = 0.0
    for x, y in zip(data.x_test.split(batch), data.y_test.split(batch), strict=True):
        logits = forward(x)
        target = y.expand(len(logits), -1)
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        loss = loss + each.sum(1).double()
        hits = hits + (logits.argmax(-1) == target).sum(1).double()
    return (loss / len(data.y_test)).cpu(), (hits / len(data.y_test)).cpu()


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch: int = 1000) -> Tensor:
    """Logits (N, classes) of a model in evaluation mode, whatever mode it is in; the mode is kept."""
    mode = model.training
    model.eval()
    logits = torch.cat([model(part) for part in x.split(batch)])
    model.train(mode)
    return logits


def progress(**options) -> tqdm:
    """A progress bar where somebody watches: a terminal, or a live notebook.

    NORMLIB_PROGRESS=0 silences it everywhere; so the book's build and its tests keep outputs identical.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(disable=not watched or os.environ.get("NORMLIB_PROGRESS") == "0", leave=False, **options)
