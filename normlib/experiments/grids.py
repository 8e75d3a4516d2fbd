"""The grids, as data: what is varied, and what every run of a profile has in common."""

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Grid:
    """Every combination of `axes`, with the settings of one profile.

    `axes` maps a name to settings by label; each setting is a dictionary of configuration entries, so that an axis may
    change several at once. `profiles` maps a profile's name to the entries common to its runs.
    """

    name: str
    question: str
    axes: dict[str, dict[str, dict]]
    profiles: dict[str, dict]

    def configs(self, profile: str, seeds: int) -> list[dict]:
        """The configuration of every run, seeds 0 … seeds − 1 outermost, so that an early stop leaves whole seeds."""
        if profile not in self.profiles:
            raise ValueError(f"profile must be one of {', '.join(self.profiles)}, got {profile!r}")
        if seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}")
        out = []
        for seed in range(seeds):
            for labels in product(*self.axes.values()):
                config = dict(self.profiles[profile], profile=profile, seed=seed)
                for axis, label in zip(self.axes, labels, strict=True):
                    config |= {axis: label, **self.axes[axis][label]}
                out.append(config)
        return out


# Seed 002's network and data; the learning rate: see BRN_FIG2.
_THREE_BLOCK = {"model": "three-block", "dataset": "cifar10", "size": 32, "learning_rate": 0.03, "momentum": 0.9}

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
        "m": {str(m): {"batch_size": m, "learning_rate": 0.2 * m / 64} for m in (2, 4, 8, 16, 32, 64, 128)},
    },
    profiles={"short": {"model": "mlp", "dataset": "digits", "size": 8, "epochs": 10, "momentum": 0.0}},
)

# Seed 002 names neither the size of its microbatches nor the end of its ramp, and gives the ramp two starts, 20 and 50.
# Both are run, with the end of training as the ramp's end; a third ramp, from the first epoch on, asks whether Batch
# Renorm can lead early at all, since before its ramp starts it trains exactly as Batch Norm does.
BRN_FIG2 = Grid(
    name="brn-fig2",
    question="Seed 002: is Batch Renorm ahead of Batch Norm early, and do the two converge?",
    axes={
        "method": {
            "bn": {"norm": "bn", "norm_options": {"momentum": 0.01}},
            "brn-0": {"norm": "brn", "ramp_start": 0},
            "brn-20": {"norm": "brn", "ramp_start": 20},
            "brn-50": {"norm": "brn", "ramp_start": 50},
        },
        "m": {str(m): {"virtual_batch_size": m} for m in (2, 16)},
    },
    profiles={
        "short": _THREE_BLOCK
        | {"dataset": "digits", "size": 16, "width": 8, "epochs": 20, "steps": 5, "batch_size": 64},
        "cpu": _THREE_BLOCK | {"width": 16, "epochs": 100, "steps": 25, "batch_size": 64, "test_images": 1000},
        "full": _THREE_BLOCK | {"width": 32, "epochs": 100, "steps": 25, "batch_size": 2000},
    },
)

GRIDS = {grid.name: grid for grid in (BRN_FIG2, DIGITS_BATCH_SIZE, LENET_MNIST, LENET_RATES)}
