"""The grids, as data: what is varied, and what every run of a profile has in common.

Three settings that a small batch mixes up are kept apart: `batch_size`, the samples of a step; `virtual_batch_size`,
the m over which a layer takes its statistics; `learning_rate`, which the rule 0.1 · m/64 ties to either.
"""

from dataclasses import dataclass, replace
from itertools import product

from ..schedules import scaled_learning_rate

_PER_SAMPLE = ("none", "ln", "in", "gn")


@dataclass(frozen=True)
class Grid:
    """Every combination of `axes`, with the settings of one profile.

    `axes` maps a name to settings by label; each setting is a dictionary of configuration entries, so that an axis may
    change several at once. `profiles` maps a profile's name to the entries common to its runs; its entry "axes", if
    there is one, replaces axes of the same names; the entry "together", a number, has the seeds trained in blocks of so
    many. A method that takes no statistics over the batch is run once for all virtual batch sizes, with the label "any"
    in place of m. `figure` is what the seed's figure has on its horizontal axis: "epochs" or "batch size" (the axis
    "m").
    """

    name: str
    question: str
    axes: dict[str, dict[str, dict]]
    profiles: dict[str, dict]
    figure: str | None = None

    def configs(self, profile: str, seeds: int) -> list[dict]:
        """The configuration of every run, seeds 0 … seeds − 1 outermost, so that an early stop leaves whole seeds."""
        if profile not in self.profiles:
            raise ValueError(f"profile must be one of {', '.join(self.profiles)}, got {profile!r}")
        if seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}")
        common = dict(self.profiles[profile])
        axes = self.axes | common.pop("axes", {})
        out = []
        for seed in range(seeds):
            own = []  # equal ones have the same seed
            for labels in product(*axes.values()):
                config = dict(common, profile=profile, seed=seed)
                for axis, label in zip(axes, labels, strict=True):
                    config |= {axis: label, **axes[axis][label]}
                if config["norm"].removesuffix("+ws") in _PER_SAMPLE and "virtual_batch_size" in config:
                    del config["virtual_batch_size"]
                    config["m"] = "any"
                if config not in own:
                    own.append(config)
            out += own
        return out


def _tuned(methods: dict[str, dict], rates: dict[str, float]) -> dict[str, dict]:
    """The methods, each with its own learning rate on the strided net."""
    return {name: settings | {"learning_rate": rates[name]} for name, settings in methods.items()}


def _virtual(*sizes: int) -> dict[str, dict]:
    """The layer's m alone: statistics of m samples in steps of a size that does not change."""
    return {str(m): {"virtual_batch_size": m} for m in sizes}


def _batches(*sizes: int, base: float = 0.1) -> dict[str, dict]:
    """The whole step's batch, and by the rule base · m/64 the learning rate with it."""
    return {str(m): {"batch_size": m, "learning_rate": scaled_learning_rate(m, base)} for m in sizes}


# CIFAR on two cores: a net whose late layers have 2×2 positions, so that a small m leaves few values a statistic.
_STRIDED = {
    "model": "strided",
    "width": 32,
    "size": 32,
    "train_images": 20_000,
    "epochs": 8,
    "decay_every": 6,
    "batch_size": 32,
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "augment": True,
}
# Without augmentation 8 epochs of half the images train far enough for methods to differ.
_STRIDED_PLAIN = _STRIDED | {"augment": False, "train_images": 10_000}
_STRIDED_DIGITS = {
    "model": "strided",
    "width": 16,
    "dataset": "digits",
    "size": 32,
    "epochs": 5,
    "batch_size": 32,
    "learning_rate": 0.05,
    "momentum": 0.9,
}
# The book's smallest network that a small batch hurts.
_MLP_DIGITS = {"model": "mlp", "size": 8, "epochs": 10, "momentum": 0.0}
_MLPS_DIGITS = _MLP_DIGITS | {"together": 5}
# Seed 000's setting, which is the paper's: its notebooks add the momentum and the weight decay.
_SEED_000 = {
    "size": 32,
    "epochs": 200,
    "decay_every": 60,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "augment": True,
}
_RESNET_18_AT_32 = _SEED_000 | {
    "model": "resnet18",
    "dataset": "cifar10",
    "batch_size": 32,
    "learning_rate": scaled_learning_rate(32),
}
# Of 0.0125, 0.05 and 0.2 the one with the lowest training loss in strided-rates.
_RATES = {
    "bn": 0.2,
    "bn+ws": 0.05,
    "mbn": 0.0125,
    "gn": 0.0125,
    "gn+ws": 0.0125,
    "ln": 0.0125,
    "in": 0.2,
    "bcn+ws": 0.05,
    "bcn-estimate+ws": 0.0125,
}
# The rate with the best accuracy on held-out training images in mbn-rates, whose list was extended until no best one
# stood at its end.
_MBN_RATES = {
    "bn": 0.05,
    "brn": 0.0125,
    "mbn": 0.05,
    "ln": 0.003125,
    "in": 0.2,
    "gn": 0.003125,
    "gn+ws": 0.0125,
    "bn+ws": 0.05,
    "bcn+ws": 0.05,
    "bcn-estimate+ws": 0.0125,
}
_CIFAR = {name: {"dataset": name} for name in ("cifar10", "cifar100")}


# Seed 002's network and data; the learning rate: see BRN_FIG2.
_THREE_BLOCK = {"model": "three-block", "dataset": "cifar10", "size": 32, "learning_rate": 0.03, "momentum": 0.9}

_SMALL_STRIDES = {"strides": [2, 2, 1, 2, 1, 1, 1]}  # on 16×16 images: 2×2 positions at the end, which IN needs
_BRN = {"norm": "brn", "ramp_start": 0}


def _all_methods(groups: int) -> dict[str, dict]:
    grouped = {"num_groups": groups}
    return {
        "none": {"norm": "none"},
        "bn": {"norm": "bn"},
        "brn": _BRN,
        "mbn": {"norm": "mbn"},
        "ln": {"norm": "ln"},
        "in": {"norm": "in"},
        "gn": {"norm": "gn", "norm_options": grouped},
        "gn+ws": {"norm": "gn+ws", "norm_options": grouped},
        "bn+ws": {"norm": "bn+ws"},
        "bcn+ws": {"norm": "bcn+ws", "norm_options": grouped},
        "bcn-estimate+ws": {"norm": "bcn+ws", "norm_options": grouped | {"estimate": True}},
    }


def _eight_groups(*names: str) -> dict[str, dict]:
    """Some of the methods, for widths of 32 or 64, whose channels 32 groups would leave alone or in pairs."""
    return {name: _all_methods(8)[name] for name in names}


_WS_METHODS = _eight_groups("gn", "gn+ws", "bn", "bn+ws", "bcn+ws", "bcn-estimate+ws")
_ON_PHOTOGRAPHS = {name: settings for name, settings in _all_methods(8).items() if name != "none"}

ALL_METHODS = Grid(
    name="all-methods",
    question="Which method at which batch size, when each has its own learning rate?",
    axes={
        "method": _all_methods(4),  # 4 groups of a width of 16
        # Up to 32 the layer's m alone, in steps of 32 images; beyond, the step is the batch.
        "m": {str(m): {"batch_size": 32, "virtual_batch_size": m} for m in (1, 2, 4, 8, 16, 32)}
        | {str(m): {"batch_size": m} for m in (64, 128, 256)},
        "rate": {f"{rate:g}": {"learning_rate": rate} for rate in (0.003125, 0.0125, 0.05, 0.2, 0.8)},
    },
    profiles={
        "short": {"model": "strided", "width": 16, "dataset": "digits", "size": 16, "epochs": 8, "momentum": 0.9}
        | _SMALL_STRIDES
        | {"together": 10},
        # a method's rate is one for all m; some settings are mbn-fig4's, run again: the label `rate` makes another id
        "cpu": _STRIDED_PLAIN
        | {"dataset": "cifar10"}
        | {
            "axes": {
                "method": _tuned(_ON_PHOTOGRAPHS, _MBN_RATES),
                "m": _virtual(1, 2, 4, 8, 32),
                "rate": {"tuned": {}},
            }
        },
    },
    figure="batch size",
)

LENET_MNIST = Grid(
    name="lenet-mnist",
    question="Seed 003: does Batch Norm change anything on a net as shallow as LeNet-5?",
    axes={
        "method": {
            "none": {"norm": "none"},
            "bn": {"norm": "bn"},
            "torch-bn": {"norm": "torch-bn"},
            "written-out": {"norm": "written-out"},
        },
        # The seed prints "Learning rate = 0.9. Optimizer: SGD": either reading of 0.9 is run.
        "optimizer": {
            "rate 0.9": {"learning_rate": 0.9, "momentum": 0.0},
            "momentum 0.9": {"learning_rate": 0.01, "momentum": 0.9},
        },
    },
    profiles={
        "short": {"model": "lenet5", "dataset": "digits", "size": 32, "epochs": 10, "batch_size": 64},
        "full": {"model": "lenet5", "dataset": "mnist", "size": 32, "epochs": 10, "batch_size": 64},
    },
)

LENET_RATES = Grid(
    name="lenet-rates",
    question="Does Batch Norm let LeNet-5 take a larger learning rate, or learn faster at a given one?",
    axes={
        "method": {"none": {"norm": "none"}, "bn": {"norm": "bn"}},
        "rate": {f"{r:g}": {"learning_rate": r, "momentum": 0.0} for r in (0.1, 2.7)},
    },
    profiles={
        "short": {"model": "lenet5", "dataset": "digits", "size": 32, "epochs": 3, "batch_size": 64},
        "full": {"model": "lenet5", "dataset": "mnist", "size": 32, "epochs": 3, "batch_size": 64},
    },
)

DIGITS_BATCH_SIZE = Grid(
    name="digits-batch-size",
    question="The book in one figure: what the batch size does to a deep fully connected net.",
    axes={
        "method": {name: {"norm": name} for name in ("none", "bn", "ln")},
        "m": _batches(2, 4, 8, 16, 32, 64, 128, base=0.2),
    },
    profiles={"short": _MLP_DIGITS | {"dataset": "digits"}},
)


def _ramps(epochs: int) -> dict[str, dict]:
    """Batch Norm, and Batch Renorm with ramps that start after 0, 20 and 50 % of the epochs."""
    ramps = {f"brn-{start}": {"norm": "brn", "ramp_start": epochs * start // 100} for start in (0, 20, 50)}
    return {"bn": {"norm": "bn", "norm_options": {"momentum": 0.01}}} | ramps


# Seed 002 names neither the size of its microbatches nor the end of its ramp, and gives the ramp two starts, 20 and 50.
# Both are run, with the end of training as the ramp's end; a third ramp, from the first epoch on, asks whether Batch
# Renorm can lead early at all, since before its ramp starts it trains exactly as Batch Norm does.
BRN_FIG2 = Grid(
    name="brn-fig2",
    question="Seed 002: is Batch Renorm ahead of Batch Norm early, and do the two converge?",
    axes={
        "method": _ramps(100),
        "m": _virtual(2, 16),
    },
    profiles={
        "short": _THREE_BLOCK
        | {"dataset": "digits", "size": 16, "width": 8, "epochs": 20, "steps": 5, "batch_size": 64}
        | {"axes": {"method": _ramps(20)}},
        "cpu": _THREE_BLOCK | {"width": 16, "epochs": 100, "steps": 25, "batch_size": 64, "test_images": 1000},
        "full": _THREE_BLOCK | {"width": 32, "epochs": 100, "steps": 25, "batch_size": 2000},
    },
    figure="epochs",
)

_GN_METHODS = _eight_groups("bn", "gn", "ln", "in")

GN_BATCH_SIZE = Grid(
    name="gn-batch-size",
    question="Seed 001 and the Group Norm paper: how does accuracy depend on the batch size, with BN and with GN?",
    axes={
        "method": _GN_METHODS,
        "m": _virtual(2, 4, 8, 16, 32),
    },
    profiles={
        "short": _STRIDED_DIGITS,
        "cpu": _STRIDED_PLAIN | {"dataset": "cifar10", "axes": {"method": _tuned(_GN_METHODS, _MBN_RATES)}},
        "full": _RESNET_18_AT_32,
    },
    figure="batch size",
)

WS_BCN = Grid(
    name="ws-bcn",
    question="Seed 004: do Weight Standardization and Batch-Channel Norm at micro-batches reach BN at large ones?",
    axes={
        "method": _WS_METHODS,
        "m": _virtual(1, 2, 8),
    },
    profiles={
        "short": _STRIDED_DIGITS,
        "cpu": _STRIDED | {"dataset": "cifar10", "axes": {"method": _tuned(_WS_METHODS, _RATES)}},
        "full": _RESNET_18_AT_32,
    },
    figure="batch size",
)

_METHODS = {
    "bn": {"norm": "bn"},
    "mbn": {"norm": "mbn"},
    "gn": {"norm": "gn"},
    "ln": {"norm": "ln"},
    "in": {"norm": "in"},
}
_SMALL_METHODS = _eight_groups(*_METHODS)

_SHORT_AXES = {
    "dataset": {"digits": {"dataset": "digits"}},
    "method": {name: _SMALL_METHODS[name] for name in ("bn", "mbn", "gn", "ln")},  # IN needs positions
}

MBN_FIG4 = Grid(
    name="mbn-fig4",
    question="Seed 000, figure 4: which method is best at which batch size?",
    axes={"dataset": _CIFAR, "method": _SMALL_METHODS, "m": _virtual(2, 4, 8, 16, 32)},
    profiles={
        "short": _MLPS_DIGITS | {"axes": _SHORT_AXES | {"m": _batches(4, 16, 64, base=0.2)}},
        "cpu": _STRIDED_PLAIN | {"axes": {"method": _tuned(_SMALL_METHODS, _MBN_RATES)}},
        "full": _SEED_000 | {"model": "resnet18", "axes": {"method": _METHODS, "m": _batches(2, 4, 8, 16, 32)}},
    },
    figure="batch size",
)

MBN_FIG5 = Grid(
    name="mbn-fig5",
    question="Seed 000, figure 5: at a batch of 8, does MBN end above the others and still gain in the last epochs?",
    axes={"dataset": _CIFAR, "method": _SMALL_METHODS},
    profiles={
        "short": _MLPS_DIGITS | _batches(8, base=0.2)["8"] | {"axes": _SHORT_AXES},
        # the runs of figure 4 at its smallest m, which are not trained again
        "cpu": _STRIDED_PLAIN | {"axes": {"method": _tuned(_SMALL_METHODS, _MBN_RATES), "m": _virtual(2)}},
        "full": _SEED_000 | _batches(8)["8"] | {"model": "resnet18", "axes": {"method": _METHODS}},
    },
    figure="epochs",
)

# Two families, each at several depths, stand in for the seed's five networks where there is no GPU.
_THIN_NETWORKS = {
    f"thin ResNet-{depth}": {"model": "thin-resnet", "depth": depth, "width": 8, "stem_stride": 2}
    for depth in (8, 14, 20)
} | {
    f"plain {len(strides)}": {"model": "strided", "width": 32, "strides": strides}
    for strides in ([2, 2, 1, 2, 1, 2, 1], [2, 2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1])
}
_NETWORKS = {name: {"model": name} for name in ("resnet18", "resnet34", "resnet50", "vgg11", "vgg16")}
_SMALL_NETWORKS = {"network": _THIN_NETWORKS, "m": _virtual(2)}
_SHORT_DEPTHS = {f"MLP {depth}": {"depth": depth} for depth in (2, 5, 10)}


MBN_FIG6A = Grid(
    name="mbn-fig6a",
    question="Seed 000, figure 6a: on CIFAR-100 with five networks, is MBN behind early and ahead late?",
    axes={"method": {"bn": {"norm": "bn"}, "mbn": {"norm": "mbn"}}, "network": _NETWORKS, "m": _batches(8, 16)},
    profiles={
        "short": _MLPS_DIGITS
        | {"dataset": "digits", "axes": {"network": _SHORT_DEPTHS, "m": _batches(4, 8, base=0.2)}},
        "cpu": _STRIDED_PLAIN | {"dataset": "cifar100", "learning_rate": 0.05, "axes": _SMALL_NETWORKS},
        "full": _SEED_000 | {"dataset": "cifar100"},
    },
    figure="epochs",
)
# The final accuracies of some of the same runs: whatever figure 6a has recorded is not trained again.
MBN_FIG6B = replace(
    MBN_FIG6A,
    name="mbn-fig6b",
    question="Seed 000, figure 6b: at a batch of 8, does MBN beat BN on every network, and does depth cost BN more?",
    axes=MBN_FIG6A.axes | {"m": _batches(8)},
    profiles={
        "short": MBN_FIG6A.profiles["short"] | {"axes": {"network": _SHORT_DEPTHS, "m": _batches(4, base=0.2)}},
        "cpu": MBN_FIG6A.profiles["cpu"],
        "full": MBN_FIG6A.profiles["full"],
    },
    figure=None,
)

MBN_RATES = Grid(
    name="mbn-rates",
    question="Which learning rate suits which method at m = 2? One seed, half the epochs, held-out training images.",
    axes={
        "method": _SMALL_METHODS | _ON_PHOTOGRAPHS,
        "rate": {f"{rate:g}": {"learning_rate": rate} for rate in (0.00078125, 0.003125, 0.0125, 0.05, 0.2, 0.8)},
    },
    profiles={
        "short": _STRIDED_DIGITS | {"virtual_batch_size": 2, "epochs": 2, "validation": 200},
        "cpu": _STRIDED_PLAIN
        | {"dataset": "cifar10", "virtual_batch_size": 2}
        | {"epochs": 4, "decay_every": 3, "validation": 5000},
    },
)

STRIDED_RATES = Grid(
    name="strided-rates",
    question="Which learning rate suits which method on the strided net? One seed, 3 short epochs, m = 2.",
    axes={
        "method": _WS_METHODS | _SMALL_METHODS,
        "rate": {f"{rate:g}": {"learning_rate": rate} for rate in (0.003125, 0.0125, 0.05, 0.2, 0.8)},
    },
    profiles={
        "short": _STRIDED_DIGITS | {"virtual_batch_size": 2, "epochs": 2},
        "cpu": _STRIDED | {"dataset": "cifar10", "virtual_batch_size": 2, "train_images": 10_000, "epochs": 3},
    },
)

# 40×40 leaves 2×2 positions to the last maps of a network made for 224×224; 32×32 would leave one.
_CONVERTED = {
    "model": "torchvision-resnet18",
    "dataset": "cifar10",
    "size": 40,
    "train_images": 3000,
    "test_images": 2000,
    "batch_size": 32,
    "momentum": 0.9,
    "weight_decay": 1e-4,
}
_CONVERTED_DIGITS = _CONVERTED | {"dataset": "digits", "train_images": 400, "test_images": 200}
_CONVERSIONS = {
    f"{name}, m = {m}": {"norm": name, "virtual_batch_size": m} for name, m in (("bn", 2), ("bn+ws", 2), ("bn", 32))
} | {"gn+ws": {"norm": "gn+ws"}}

# Of the rates in the grid after it, the one that is best for each of the four.
MIGRATION = Grid(
    name="migration",
    question="torchvision's ResNet-18 at two images a statistic: what does one line of conversion change?",
    axes={"method": _CONVERSIONS},
    profiles={
        "short": _CONVERTED_DIGITS | {"epochs": 2, "learning_rate": 0.05},
        "cpu": _CONVERTED | {"epochs": 5, "decay_every": 4, "learning_rate": 0.003125},
    },
)

MIGRATION_RATES = Grid(
    name="migration-rates",
    question="Which learning rate suits each conversion? One seed, 2 of 5 epochs, held-out training images.",
    axes=MIGRATION.axes
    | {"rate": {f"{rate:g}": {"learning_rate": rate} for rate in (0.00078125, 0.003125, 0.0125, 0.05, 0.2)}},
    profiles={
        "short": _CONVERTED_DIGITS | {"epochs": 1, "validation": 100},
        "cpu": _CONVERTED | {"epochs": 2, "validation": 2000},
    },
)

GRIDS = {
    grid.name: grid
    for grid in (
        ALL_METHODS,
        BRN_FIG2,
        DIGITS_BATCH_SIZE,
        GN_BATCH_SIZE,
        LENET_MNIST,
        LENET_RATES,
        MBN_FIG4,
        MBN_FIG5,
        MBN_FIG6A,
        MBN_FIG6B,
        MBN_RATES,
        MIGRATION,
        MIGRATION_RATES,
        STRIDED_RATES,
        WS_BCN,
    )
}
