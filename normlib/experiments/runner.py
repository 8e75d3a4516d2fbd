"""One run: from its configuration to its record, or to those of all the seeds that are trained together."""

import difflib
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import datasets, models
from ..convert import convert_norm, norm_factory, standardize_convolutions
from ..schedules import renorm_limits, step_decay
from ..training import History, first, predict, shuffled, train
from . import records


class _TorchBatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's own Batch Norm for inputs of any rank, the yardstick of seed 003's comparison."""

    def _check_input_dim(self, input):
        pass


class _WrittenOutBatchNorm(nn.Module):
    """Batch Norm as a first reader of the paper writes it, gradient left to autograd: seed 003's other side."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        dims = [d for d in range(x.dim()) if d != 1]
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(dims), x.var(dims, correction=0)
            n = x.numel() // x.shape[1]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (n / (n - 1)), self.momentum)
        shape = [1, -1] + [1] * (x.dim() - 2)
        x = (x - mean.view(shape)) / (var.view(shape) + self.eps).sqrt()
        return x * self.weight.view(shape) + self.bias.view(shape)


YARDSTICKS = {"torch-bn": _TorchBatchNorm, "written-out": _WrittenOutBatchNorm}


_MODELS = ("lenet5", "mlp", "three-block", "strided", "thin-resnet")
_MODELS += ("resnet18", "resnet34", "resnet50", "vgg11", "vgg16", "torchvision-resnet18")
_DATASETS = {"digits": datasets.digits, "mnist": datasets.mnist}
_CIFAR = {"cifar10": datasets.cifar10, "cifar100": datasets.cifar100}
_KEYS = ("profile", "seed", "together", "epochs", "steps", "batch_size", "virtual_batch_size", "method", "m")
_KEYS += ("dataset", "size", "train_images", "test_images", "validation", "augment")
_KEYS += ("model", "width", "depth", "strides", "stem_stride", "norm", "norm_options", "ramp_start")
_KEYS += ("learning_rate", "decay_every", "momentum", "weight_decay", "autocast")
_PRECISIONS = {"bfloat16": torch.bfloat16}


def choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value`, if it is one of `allowed`.

    Raises:
        ValueError: it is not; the message has the list, and the nearest of it.
    """
    allowed = list(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(str(value), allowed, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}{hint}")


def check(config: dict, axes: Iterable[str] = ()) -> None:
    """Refuse a configuration with an entry that nothing reads.

    Args:
        config: of one run.
        axes: names of its grid's axes, whose labels it has as well.

    Raises:
        ValueError: an unknown key, model, data set or precision.
    """
    known = sorted({*_KEYS, *axes})
    for key in config:
        choice("configuration key", key, known)
    if "model" in config:
        choice("model", config["model"], _MODELS)
    if "dataset" in config:
        choice("dataset", config["dataset"], [*_DATASETS, *_CIFAR])
    if "autocast" in config:
        choice("autocast", config["autocast"], _PRECISIONS)


def _options(config: dict) -> dict:
    """What the configuration says of its layers."""
    options = dict(config.get("norm_options", {}))
    if "ramp_start" in config:  # Batch Renorm's limits, widened from then to the last epoch
        start, end = config["ramp_start"], config["epochs"]
        limits = partial(renorm_limits, start=start, r_end=end, d_end=end)
        options["schedule"] = lambda epoch, epochs: limits(epoch - 1)
    if config["norm"] == "mbn":
        options.setdefault("batch_size", config.get("virtual_batch_size", config["batch_size"]))
    return options


def _norm_layer(config: dict):
    if config["norm"] in YARDSTICKS:
        return YARDSTICKS[config["norm"]]
    return norm_factory(config["norm"].removesuffix("+ws"), **_options(config))


def _converted(config: dict, data: datasets.Data) -> nn.Module:
    """torchvision's ResNet-18 as it comes, converted in one call, on images enlarged to the configuration's size."""
    from torchvision.models import resnet18

    model = resnet18(num_classes=data.num_classes)
    channels, stem = data.x_train.shape[1], model.conv1
    if channels != stem.in_channels:
        model.conv1 = nn.Conv2d(channels, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)
    enlarge = nn.Upsample((config["size"],) * 2, mode="bilinear")
    return nn.Sequential(enlarge, convert_norm(model, config["norm"], **_options(config)))


def _model(config: dict, data: datasets.Data) -> nn.Module:
    kind = choice("model", config["model"], _MODELS)
    if kind.startswith("torchvision"):
        return _converted(config, data)
    classes, norm_layer = data.num_classes, _norm_layer(config)
    small = {"in_channels": data.x_train.shape[1], "num_classes": classes, "norm_layer": norm_layer}
    small |= {"width": config["width"]} if "width" in config else {}
    if kind == "lenet5":
        model = models.LeNet5(classes, norm_layer)
    elif kind == "mlp":
        given = {name: config[name] for name in ("width", "depth") if name in config}
        model = models.MLP(data.x_train[0].numel(), **given, num_classes=classes, norm_layer=norm_layer)
    elif kind == "three-block":
        model = models.ThreeBlockCNN(**small)
    elif kind == "strided":
        small |= {"strides": config["strides"]} if "strides" in config else {}
        model = models.StridedCNN(**small)
    elif kind == "thin-resnet":
        model = models.ThinResNet(config["depth"], stem_stride=config["stem_stride"], **small)
    elif kind.startswith("resnet"):
        model = models.cifar_resnet(kind, classes, norm_layer)
    else:
        model = models.cifar_vgg(kind, classes, norm_layer)
    if config["norm"].endswith("+ws"):
        standardize_convolutions(model)
    return model


def device() -> str:
    """Where runs are trained: $NORMLIB_DEVICE, or else a GPU if there is one (under torchrun, each process's own).

    Raises:
        ValueError: NORMLIB_DEVICE names no device that torch can use here.
    """
    name = os.environ.get("NORMLIB_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for a device
        raise ValueError(f"NORMLIB_DEVICE must be a device of torch's here, got {name!r} ({error})") from error
    return name


def compiled() -> bool:
    """Whether training steps are compiled: $NORMLIB_COMPILE, 0 or 1; 0 where it is not set.

    Raises:
        ValueError: it is neither.
    """
    value = os.environ.get("NORMLIB_COMPILE") or "0"
    if value not in ("0", "1"):
        raise ValueError(f"NORMLIB_COMPILE must be 0 or 1, got {value!r}")
    return value == "1"


@lru_cache(maxsize=2)
def _data(
    dataset: str,
    size: int,
    train_images: int | None,
    test_images: int | None,
    validation: int | None,
    device: str = "cpu",
) -> datasets.Data:
    choice("dataset", dataset, [*_DATASETS, *_CIFAR])
    data = _CIFAR[dataset]() if dataset in _CIFAR else _DATASETS[dataset](size=size)
    data = data.validation(validation) if validation else data
    return data.subset(train_images, test_images).to(device)


def members(config: dict) -> list[dict]:
    """The configurations that are trained in the same steps: those of a whole block of `together` seeds.

    Blocks are fixed, so that a record does not depend on which seeds were asked for.
    """
    size = config.get("together", 1)
    first = config["seed"] // size * size
    return [config | {"seed": seed} for seed in range(first, first + size)]


def execute(grid: str, config: dict, checkpoint: Path | None = None, **hooks) -> list[dict]:
    """Train one configuration, with all its `members`, and return their records (schema in `records`).

    checkpoint and hooks (`on_epoch`) go to `training.train`.
    """
    started = datetime.now(timezone.utc)
    records.commit()  # of the code that runs, whatever is committed meanwhile
    block = members(config)
    images = (config.get(key) for key in ("train_images", "test_images", "validation"))
    data = _data(config["dataset"], config["size"], *images, device())
    decay = config.get("decay_every")
    history = train(
        lambda: _model(config, data),
        data,
        seeds=[c["seed"] for c in block],
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        learning_rate=config["learning_rate"],
        momentum=config["momentum"],
        weight_decay=config.get("weight_decay", 0.0),
        schedule=(lambda epoch, epochs: step_decay(epoch, decay)) if decay else None,
        sampler=first(config["steps"]) if "steps" in config else shuffled,
        augment=partial(datasets.crop_flip, black=data.black) if config.get("augment") else None,
        virtual_batch_size=config.get("virtual_batch_size"),
        together=len(block) > 1,
        autocast=_PRECISIONS[config["autocast"]] if "autocast" in config else None,
        compiled=compiled(),
        checkpoint=checkpoint,
        label=" ".join(str(config[k]) for k in ("method", "m", "seed") if k in config),
        **hooks,
    )
    environment = records.environment(data.x_train.device.type, started) | {"compiled": compiled()}
    return [_record(grid, c, data, history, i, environment) for i, c in enumerate(block)]


def _record(grid: str, config: dict, data: datasets.Data, history: History, i: int, environment: dict) -> dict:
    """The record of the i-th seed of a history."""
    curves = {name: getattr(history, name)[i].tolist() for name in records.CURVES[:-1]}
    curves = {name: [v if v == v else None for v in values] for name, values in curves.items()}
    curves["epoch_seconds"] = [seconds / len(history.seeds) for seconds in history.epoch_seconds]
    curves = {name: [None if v is None else round(v, 6) for v in values] for name, values in curves.items()}
    right = predict(history.models[i], data.x_test).argmax(1) == data.y_test
    per_class = [round(right[data.y_test == c].double().mean().item(), 6) for c in range(data.num_classes)]
    accuracy = curves["test_accuracy"]
    return {
        "schema": records.SCHEMA,
        "results_version": records.RESULTS_VERSION,
        "grid": grid,
        "id": records.config_id(config),
        "config": config,
        "curves": curves,
        "final": accuracy[-1],
        "best": max((a for a in accuracy if a is not None), default=None),
        "per_class": per_class,
        "diverged_at": history.diverged_at.get(config["seed"]),
        "environment": environment,
    }
