"""One training loop for every model, normalization and batch size; many seeds at once where that pays.

`train` builds one model per seed, trains them by SGD and returns every curve. Seeds trained together share every
step: folded into one network (`folding`), where ten small fully connected networks cost less than twice as much as
one, or, where a layer does not fold, vectorised by `torch.func.vmap`, where they cost about four times as much.
Convolutional networks gain on small images only, and by folding only; else they are trained one by one. All ways give
each seed the same initial weights and the same batches.
"""

import hashlib
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.func import functional_call, stack_module_state
from torch.optim.sgd import sgd
from tqdm.auto import tqdm

from . import checkpoints
from .convert import set_epoch
from .datasets import Data
from .folding import alike, fold
from .layers import _checks

Sampler = Callable[[Tensor, int, torch.Generator], Iterable[Tensor]]
Augment = Callable[[Tensor, torch.Generator], Tensor]


def shuffled(labels: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches of one epoch: a random order cut into full batches; a remainder is left out."""
    order = torch.randperm(len(labels), generator=generator)
    return iter(order[: len(order) // batch_size * batch_size].split(batch_size))


def classwise(classes: int) -> Sampler:
    """A sampler of batches that are not iid: each has only `classes` classes, drawn anew, and equally much of each.

    A class's samples come in random order, without repetition until too few for a batch are left; an epoch has as many
    batches as one of `shuffled`. Within a batch the order is random.

    Raises:
        ValueError: classes below 1; when sampling, more classes than the labels have, a batch size that classes does
            not divide, or a class (from 0 to the largest label) with too few samples for its share of a batch.
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")

    def batches(labels: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        members = [(labels == c).nonzero().flatten().cpu() for c in range(int(labels.max()) + 1)]
        if classes > len(members):
            raise ValueError(f"classes must be at most {len(members)}, the classes of the labels, got {classes}")
        if batch_size % classes:
            raise ValueError(f"batch_size must be a multiple of classes = {classes}, got {batch_size}")
        share = batch_size // classes
        for c, own in enumerate(members):
            if len(own) < share:
                raise ValueError(
                    f"labels must hold at least {share} samples of each class, got {len(own)} of class {c}"
                )
        left = [own[:0] for own in members]
        for _ in range(len(labels) // batch_size):
            parts = []
            for c in torch.randperm(len(members), generator=generator)[:classes].tolist():
                if len(left[c]) < share:
                    left[c] = members[c][torch.randperm(len(members[c]), generator=generator)]
                parts.append(left[c][:share])
                left[c] = left[c][share:]
            yield torch.cat(parts)[torch.randperm(batch_size, generator=generator)]

    return batches


def first(steps: int, sampler: Sampler = shuffled) -> Sampler:
    """A sampler whose epochs end after `steps` batches of `sampler`.

    Raises:
        ValueError: steps below 1; when sampling, more steps than `sampler` has batches.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")

    def batches(labels: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        taken = 0
        for batch in islice(sampler(labels, batch_size, generator), steps):
            taken += 1
            yield batch
        if taken < steps:
            raise ValueError(f"steps must be at most {taken}, the batches of an epoch, got {steps}")

    return batches


@dataclass
class History:
    """What `train` measured; every curve is a float64 tensor of shape (seeds, epochs), NaN once a seed diverged.

    train_loss is the mean cross-entropy in nats over the epoch's batches as they were trained on, train_accuracy
    the share in [0, 1] of their samples classified correctly, both in training mode; the test curves are taken
    in evaluation mode after the epoch, or after the last alone. epoch_seconds (epochs,) is wall time, all seeds
    together, without evaluation.
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
    augment: Augment | None = None,
    virtual_batch_size: int | None = None,
    together: bool | None = None,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
    test_every_epoch: bool = True,
    checkpoint: Path | str | None = None,
    label: str = "",
    on_epoch: Callable[[int], None] | None = None,
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
        augment: (images (N, C, H, W), generator) → images, applied to every training batch; for example
            `datasets.crop_flip`.
        virtual_batch_size: set on every layer that has that attribute; None leaves the layers as they were built.
        together: all seeds in one step, or one after the other; None: together where a CPU trains several seeds of a
            model without convolutions, or with convolutions that fold over images of at most 16×16 pixels, and the
            models are `folding.alike`.
        autocast: torch.bfloat16: the forward pass of training steps runs under torch.autocast in bfloat16; parameters,
            loss and evaluation stay as they are. None: it does not.
        compiled: torch.compile fuses each training step's forward and backward pass, and on a GPU captures them (mode
            "reduce-overhead"); meant for GPUs, since on a CPU it gains nothing. The first steps take a minute and more,
            sums are rounded otherwise, and dropout masks are others.
        test_every_epoch: measure the test set after each epoch; False: only after the last, with NaN before it.
        checkpoint: a file that gets the whole state of training after every epoch, and from which training goes on if
            it is there; for seeds trained together. The caller removes it.
        label: shown by the progress bar.
        on_epoch: called with the number of finished epochs after each, when its checkpoint is written.

    Modules with a method `set_epoch(epoch, epochs)` get it called before every epoch. A seed whose loss stops
    being finite is reported in `diverged_at`; its curves are NaN from that epoch on, and the others go on.

    Within a torch.distributed process group every process takes its share of each batch (augmented as a whole, so that
    images are those of one process), consecutive samples, and gradients are averaged; dropout masks are drawn from the
    first seed, the process and the epoch; running statistics, each process's own while an epoch lasts, are averaged at
    its end. With Batch Norm that equals one process with `virtual_batch_size` = batch_size / processes.

    Raises:
        ValueError: no seeds, epochs or batch_size below 1, a batch larger than the training set or not divisible by
            the processes, a virtual_batch_size that is no integer of at least 1, another autocast than bfloat16, a
            checkpoint for seeds trained one after the other, together for models that differ in more than parameters
            and buffers, compiled for models trained together that do not fold, a build that gives several seeds the
            same buffer or learned parameter.
        normlib.checkpoints.CheckpointError: the checkpoint is damaged or of another training.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 1 <= batch_size <= len(data.x_train):
        raise ValueError(f"batch_size must be between 1 and {len(data.x_train)} training images, got {batch_size}")
    if virtual_batch_size is not None:
        virtual_batch_size = _checks.positive_integer("virtual_batch_size", virtual_batch_size)
    if autocast not in (None, torch.bfloat16):  # float16 would need its loss scaled
        raise ValueError(f"autocast must be torch.bfloat16 or None, got {autocast}")
    _, processes = _shard()
    if batch_size % processes:
        raise ValueError(f"batch_size must be a multiple of the {processes} processes, got {batch_size}")
    # channels-last is how convolutions like it; with one channel there is nothing to choose
    layout = torch.channels_last if data.x_train.dim() == 4 and data.x_train.shape[1] > 1 else torch.preserve_format
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = build().to(data.x_train.device, memory_format=layout)
        if virtual_batch_size is not None:
            for module in model.modules():
                if hasattr(module, "virtual_batch_size"):
                    module.virtual_batch_size = virtual_batch_size
        models.append(model)
    own = [{id(t) for t in (*m.buffers(), *(p for p in m.parameters() if p.requires_grad))} for m in models]
    if len(set().union(*own)) < sum(map(len, own)):
        raise ValueError(
            "build must make each seed a model of its own, got one whose models share what training changes"
        )
    if together is None:
        convolutional = any(isinstance(m, nn.modules.conv._ConvNd) for m in models[0].modules())
        small = data.x_train[0, 0].numel() <= _SMALL and len(models) > 1
        together = data.x_train.is_cpu and alike(models) and (not convolutional or (small and fold(models) is not None))
    elif together and not alike(models):
        raise ValueError("together must be None or False for models that differ in attributes or layers, got True")
    if checkpoint is not None and len(seeds) > 1 and not together:
        raise ValueError(f"checkpoint is for seeds trained together, got seeds {list(seeds)} one after the other")
    options = dict(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule or (lambda epoch, epochs: 1.0),
        sampler=sampler,
        augment=augment,
        virtual_batch_size=virtual_batch_size,
        layout=layout,
        autocast=autocast,
        compiled=compiled,
        test_every_epoch=test_every_epoch,
        checkpoint=checkpoint,
        label=label,
        on_epoch=on_epoch or (lambda epoch: None),
    )
    groups = [list(range(len(seeds)))] if together else [[i] for i in range(len(seeds))]
    parts = [_train_group([models[i] for i in g], [seeds[i] for i in g], data, **options) for g in groups]
    return History(
        seeds=list(seeds),
        **{name: torch.cat([getattr(p, name) for p in parts]) for name in _CURVES},
        # a part whose seeds have all diverged stops early
        epoch_seconds=[sum(times) for times in zip_longest(*(p.epoch_seconds for p in parts), fillvalue=0.0)],
        diverged_at={seed: step for p in parts for seed, step in p.diverged_at.items()},
        models=[model for p in parts for model in p.models],
    )


def _shard() -> tuple[int, int]:
    """This process's number and the number of processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class _One(nn.Module):
    """A single model with the interface of `folding.Folded`."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x[:, 0])[:, None]

    def unfold(self, models: list[nn.Module]) -> None:
        """Nothing to do: the model was trained in place."""


class _Vectorised(nn.Module):
    """Models of any architecture with the interface of `folding.Folded`, by torch.func."""

    def __init__(self, models: list[nn.Module]):
        super().__init__()
        self.base = models[0]
        state, self.stacked_buffers = stack_module_state(models)
        self.names = list(state)
        self.stacked = nn.ParameterList(nn.Parameter(v, v.requires_grad) for v in state.values())
        self.each = torch.func.vmap(self._one, in_dims=(0, 0, 1), out_dims=1, randomness="different")

    def _one(self, parameters, buffers, x):
        return functional_call(self.base, (parameters, buffers), (x,))

    def _state(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.stacked, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.each(self._state(), self.stacked_buffers, x)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return iter(self.stacked)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return iter(self.stacked_buffers.values())

    def state_dict(self) -> dict[str, Tensor]:
        """What is trained, stacked; the base's own tensors are used by nobody."""
        return {n: v.detach() for n, v in (self._state() | self.stacked_buffers).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    def unfold(self, models: list[nn.Module]) -> None:
        """Write what was trained back into the models."""
        for i, model in enumerate(models):
            model.load_state_dict({n: v[i] for n, v in self.state_dict().items()})


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
    augment,
    virtual_batch_size,
    layout,
    autocast,
    compiled,
    test_every_epoch,
    checkpoint,
    label,
    on_epoch,
):
    """Train models that share every step."""
    net = _One(models[0]) if len(models) == 1 else fold(models) or _Vectorised(models)
    if compiled and isinstance(net, _Vectorised):
        raise ValueError("compiled must be False for models trained together that do not fold, got True")
    leaves = [p for p in net.parameters() if p.requires_grad]
    device, S = data.x_train.device, len(models)
    step_net = net
    if compiled:
        torch.compiler.reset()  # it gives up after a few variants of the same code, be they of other trainings
        step_net = torch.compile(net, mode="reduce-overhead" if device.type == "cuda" else "default")
    rank, processes = _shard()
    velocities: list[Tensor | None] = [None] * len(leaves)  # of SGD with momentum
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    torch.manual_seed(seeds[0] + rank)  # dropout
    curves = {k: torch.full((S, epochs), math.nan, dtype=torch.float64) for k in _CURVES}
    seconds, diverged, step, done = [], {}, 0, 0
    shapes = [(name, list(getattr(value, "shape", ()))) for name, value in net.state_dict().items()]
    key = (
        f"seeds {seeds}, {epochs} epochs, batches of {batch_size} of {len(data.x_train)} images, "
        f"virtual batches of {virtual_batch_size}, rate {learning_rate}, momentum {momentum}, "
        f"weight decay {weight_decay}, tested {'every epoch' if test_every_epoch else 'at the end'}, "
        f"{'in bfloat16, ' if autocast else ''}"
        f"network {hashlib.sha256(repr(shapes).encode()).hexdigest()[:12]}"
    )
    held = checkpoints.load(checkpoint, key) if checkpoint else None
    if held:
        try:
            net.load_state_dict(held["net"])
            velocities = [v if v is None else v.to(device) for v in held["velocities"]]
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise checkpoints.CheckpointError(f"{checkpoint}: not the state of this network ({reason})") from error
        for generator, state in zip([*generators, torch.default_generator], held["generators"], strict=True):
            generator.set_state(state)
        curves, seconds, diverged = held["curves"], held["seconds"], held["diverged"]
        step, done = held["step"], held["done"]
    epoch = done
    with progress(total=epochs, initial=done, desc=label or type(models[0]).__name__) as bar:
        for epoch in range(done + 1, epochs + 1):
            if len(diverged) == S:
                break
            rate = learning_rate * schedule(epoch, epochs)
            set_epoch(net, epoch, epochs)
            if processes > 1:  # the checkpoint has process 0's generator alone: let no mask depend on it
                torch.manual_seed(zlib.crc32(f"{seeds[0]} {rank} {epoch}".encode()))
            net.train()
            start = time.perf_counter()
            losses, hits = [], []
            for batches in zip(*(sampler(data.y_train, batch_size, g) for g in generators), strict=True):
                index = torch.stack(batches, 1).to(device)
                x, y = data.x_train[index], data.y_train[index]
                if augment:
                    x = torch.stack([augment(x[:, s], g) for s, g in enumerate(generators)], 1)
                if processes > 1:  # after that: every process draws for the whole batch, and keeps its share
                    x, y = x.chunk(processes)[rank], y.chunk(processes)[rank]
                if layout is torch.channels_last:
                    x = x.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, (-1, S))
                with torch.autocast(device.type, autocast) if autocast else nullcontext():
                    logits = step_net(x)
                loss = F.cross_entropy(logits.to(x.dtype).flatten(0, 1), y.flatten(), reduction="none")
                loss = loss.view(-1, S).mean(0)
                # not backward(): accumulating would copy every transposed gradient once more
                gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
                hit = (logits.detach().argmax(-1) == y).float().mean(0)
                if processes > 1:
                    loss = loss.detach()
                    _average([loss, hit, *(g for g in gradients if g is not None)], processes)
                _descend(leaves, gradients, velocities, lr=rate, momentum=momentum, weight_decay=weight_decay)
                losses.append(loss.detach())
                hits.append(hit)
            losses, hits = torch.stack(losses, 1).double().cpu(), torch.stack(hits, 1).double().cpu()
            if processes > 1:
                _average([b for b in net.buffers() if b.is_floating_point()], processes)
            seconds.append(time.perf_counter() - start)
            for s, seed in enumerate(seeds):
                bad = (~losses[s].isfinite()).nonzero()
                if len(bad) and seed not in diverged:
                    diverged[seed] = step + int(bad[0])
            step += losses.shape[1]
            test_loss = test_accuracy = torch.full((S,), math.nan, dtype=torch.float64)
            shown = "test_accuracy" if test_every_epoch or epoch == epochs else "train_accuracy"
            if shown == "test_accuracy":
                test_loss, test_accuracy = _evaluate(net, S, data)
                for seed, loss in zip(seeds, test_loss, strict=True):
                    if not loss.isfinite():  # broken by the epoch's last step
                        diverged.setdefault(seed, step)
            alive = torch.tensor([seed not in diverged for seed in seeds])
            measured = (losses.mean(1), hits.mean(1), test_loss, test_accuracy)
            for name, value in zip(_CURVES, measured, strict=True):
                curves[name][alive, epoch - 1] = value[alive]
            if checkpoint and rank == 0:
                state = {"net": net.state_dict(), "velocities": velocities, "curves": curves}
                state["generators"] = [g.get_state() for g in [*generators, torch.default_generator]]
                state |= {"seconds": seconds, "diverged": diverged, "step": step, "done": epoch}
                checkpoints.save(checkpoint, key, state)
            on_epoch(epoch)
            bar.update()
            bar.set_postfix_str(f"{shown.replace('_', ' ')} {curves[shown][:, epoch - 1].nanmean():.3f}")
    net.unfold(models)
    for model in models:
        set_epoch(model, epoch, epochs)  # what is scheduled is no parameter, and only the network trained has it
        model.eval()
    return History(list(seeds), **curves, epoch_seconds=seconds, diverged_at=diverged, models=models)


_SMALL = 16 * 16  # positions up to which a step's time goes into the number of its calls


@torch.no_grad()
def _descend(
    leaves: list[Tensor], gradients: Sequence[Tensor | None], velocities: list[Tensor | None], **rates
) -> None:
    """A step of SGD, in place; velocities are None before the first and without momentum.

    torch's own step without its class, whose first use imports torch's compiler: a second or more.
    """
    used = [i for i, gradient in enumerate(gradients) if gradient is not None]
    moved, slopes, kept = ([values[i] for i in used] for values in (leaves, gradients, velocities))
    sgd(moved, slopes, kept, foreach=True, dampening=0.0, nesterov=False, maximize=False, **rates)
    for i, velocity in zip(used, kept, strict=True):
        velocities[i] = velocity


def _average(tensors: list[Tensor], processes: int) -> None:
    """Replace each tensor by its mean over the processes."""
    for tensor in tensors:
        distributed.all_reduce(tensor)
        tensor.div_(processes)


_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


@torch.no_grad()
def _evaluate(net: nn.Module, count: int, data: Data) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy on the test set, per seed, in evaluation mode."""
    net.eval()
    loss = hits = 0.0
    batch = 250 if data.x_test.is_cpu else 1000  # so few that a convolution's maps stay in the cache
    for x, y in zip(data.x_test.split(batch), data.y_test.split(batch), strict=True):
        logits = net(x[:, None].expand(-1, count, *x.shape[1:]))
        target = y[:, None].expand(-1, count)
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        loss = loss + each.sum(0).double()
        hits = hits + (logits.argmax(-1) == target).sum(0).double()
    return (loss / len(data.y_test)).cpu(), (hits / len(data.y_test)).cpu()


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch: int = 1000) -> Tensor:
    """Logits (N, classes) of a model in evaluation mode, whatever mode it is in; every module's mode is kept."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        return torch.cat([model(part) for part in x.split(batch)])
    finally:
        for module, mode in modes:
            module.training = mode


def progress(**options) -> tqdm:
    """A progress bar where somebody watches: a terminal, or a live notebook.

    NORMLIB_PROGRESS=0 silences it everywhere; so the book's build and its tests keep outputs identical.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(disable=not watched or os.environ.get("NORMLIB_PROGRESS") == "0", leave=False, **options)
